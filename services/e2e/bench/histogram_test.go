package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBucketsCoverEverythingInOrder(t *testing.T) {
	last := -1
	for n := range uint64(1 << 14) {
		b := bucket(n)
		require.GreaterOrEqual(t, b, last)
		require.LessOrEqual(t, b, last+1)
		require.GreaterOrEqual(t, upper(b), n)
		require.LessOrEqual(t, float64(upper(b)-n), float64(n)/128)
		last = b
	}
	var h histogram
	require.Less(t, bucket(1<<63-1), len(h.counts))
}

func TestQuantilesAreThoseOfTheValues(t *testing.T) {
	var h histogram
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		h.add(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0.5, 0.99, 0.999} {
		exact := values[int(q*float64(len(values)))-1]
		require.InEpsilon(t, exact, h.quantile(q), 0.01)
	}
	require.Equal(t, values[len(values)-1], h.longest())
	require.Equal(t, h.longest(), h.quantile(1))
	require.EqualValues(t, len(values), h.count())
}

func TestAnEmptyHistogramHasNoQuantiles(t *testing.T) {
	var h histogram
	require.Zero(t, h.quantile(0.99))
}
