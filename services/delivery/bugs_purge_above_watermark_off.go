//go:build !runnel_bug_purge_above_watermark

package delivery

const bugPurgeAboveWatermark = false
