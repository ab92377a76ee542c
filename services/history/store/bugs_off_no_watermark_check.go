//go:build !runnel_bug_no_watermark_check

package store

const bugNoWatermarkCheck = false
