// Package source reads what a partition's stream holds: messages decoded into commands, the identity of the stream, and
// its position relative to a watermark. It decides nothing.
package source
