//go:build runnel_bug_purge_above_watermark

package purge

const bugPurgeAboveWatermark = true
