// Package source reads a partition's stream: messages decoded into commands, the identity of the stream, and its position
// relative to a watermark. It decides nothing.
package source
