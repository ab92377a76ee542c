package telemetry

import (
	"fmt"
	"log/slog"
	"math/bits"
	"strconv"
	"strings"
)

// maxListed is the number of partitions that a line can list: 0 to maxListed-1. Lines about higher partitions are only
// counted.
const maxListed = 1024

// partitions is a set of partitions, of bounded size.
type partitions struct {
	words [maxListed / 64]uint64
}

// add adds the value of an attribute. Values that are not a partition number are ignored.
func (p *partitions) add(value slog.Value) {
	var n uint64
	switch value = value.Resolve(); value.Kind() {
	case slog.KindInt64:
		n = uint64(value.Int64()) // a negative number becomes too large
	case slog.KindUint64:
		n = value.Uint64()
	default:
		if _, err := fmt.Sscan(value.String(), &n); err != nil { // the value has another type
			return
		}
	}
	if n < maxListed {
		p.words[n/64] |= 1 << (n % 64)
	}
}

// several reports whether the set has more than one member.
func (p *partitions) several() bool {
	total := 0
	for _, word := range p.words {
		total += bits.OnesCount64(word)
	}
	return total > 1
}

func (p *partitions) has(n int) bool {
	return n < maxListed && p.words[n/64]&(1<<(n%64)) != 0
}

// String lists the members as ranges, such as 0-2,5.
func (p *partitions) String() string {
	var ranges []string
	for n := 0; n < maxListed; n++ {
		if !p.has(n) {
			continue
		}
		first := n
		for p.has(n + 1) {
			n++
		}
		if n == first {
			ranges = append(ranges, strconv.Itoa(n))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", first, n))
		}
	}
	return strings.Join(ranges, ",")
}
