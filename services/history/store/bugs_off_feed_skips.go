//go:build !runnel_bug_feed_skips

package store

const bugFeedSkips = false
