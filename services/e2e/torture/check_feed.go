package torture

import (
	"encoding/hex"
	"maps"
	"slices"
)

// Fed is an event that a reader of a feed received.
type Fed struct {
	Position     Position
	Conversation string
	Seq          uint64
	Hash         string
}

// CheckFeed checks I12: the reader of each partition's feed received every committed event at least once, at its position
// and with its stored content, and no other event. The order within each stretch is checked while reading.
func CheckFeed(h History, c Content) (found []Violation) {
	if h.Fed == nil {
		return nil
	}
	type at struct {
		partition uint32
		position  Position
	}
	given := map[at]Fed{}
	for partition, entries := range h.Fed {
		for _, entry := range entries {
			here := at{partition, entry.Position}
			if before, twice := given[here]; twice && before != entry {
				found = append(found, violation("I12", "the feed of partition %d gave seq %d of %s at %v, and then seq %d of %s",
					partition, before.Seq, before.Conversation, entry.Position, entry.Seq, entry.Conversation))
			}
			given[here] = entry
		}
	}
	for _, place := range c.Places {
		here := at{place.Partition, place.Position}
		entry, known := given[here]
		delete(given, here)
		event := c.bySeq(place.Conversation, place.Seq)
		switch {
		case !known:
			found = append(found, violation("I12", "the feed of partition %d never gave %v, which is seq %d of %s", place.Partition, place.Position, place.Seq, place.Conversation))
		case entry.Conversation != place.Conversation || entry.Seq != place.Seq || entry.Hash != hex.EncodeToString(event.GetHash()):
			found = append(found, violation("I12", "the feed of partition %d gave another event at %v than is stored: seq %d of %s", place.Partition, place.Position, entry.Seq, entry.Conversation))
		}
	}
	// A reader that received a fork has read events that no longer exist.
	for here := range given {
		if h.Forks == 0 {
			found = append(found, violation("I12", "the feed of partition %d gave %v, where nothing is stored", here.partition, here.position))
		}
	}
	return found
}

// CheckPositions checks that positions rise strictly within a partition and never repeat. Within a conversation, which
// always stays in the same partition, positions rise with the seqs, up to the head's position.
func CheckPositions(_ History, c Content) (found []Violation) {
	type newest struct {
		partition uint32
		position  Position
		seq       uint64
	}
	conversations := map[string]newest{}
	for i, place := range c.Places {
		if i > 0 && c.Places[i-1].Partition == place.Partition && c.Places[i-1].Position == place.Position {
			found = append(found, violation("positions", "partition %d has %v twice: seq %d of %s, and seq %d of %s", place.Partition, place.Position,
				c.Places[i-1].Seq, c.Places[i-1].Conversation, place.Seq, place.Conversation))
		}
		before, known := conversations[place.Conversation]
		switch {
		case known && before.partition != place.Partition:
			found = append(found, violation("positions", "%s is of partition %d, and its seq %d of partition %d", place.Conversation, before.partition, place.Seq, place.Partition))
		case place.Seq != before.seq+1:
			found = append(found, violation("positions", "%s: seq %d at %v follows seq %d at %v", place.Conversation, place.Seq, place.Position, before.seq, before.position))
		}
		conversations[place.Conversation] = newest{place.Partition, place.Position, place.Seq}
	}
	for _, id := range slices.Sorted(maps.Keys(c.Heads)) {
		if head := c.Heads[id]; head.Position != conversations[id].position {
			found = append(found, violation("positions", "%s says that its head is at %v; its newest event is at %v", id, head.Position, conversations[id].position))
		}
	}
	return found
}
