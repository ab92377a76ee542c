package fleet

import (
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
)

// hears returns an instance that can receive signs of life without NATS.
func hears() *Fleet {
	f := New(Config{Service: "delivery", Instance: "d", Log: slog.New(slog.DiscardHandler)})
	f.listening = time.Now()
	return f
}

func (f *Fleet) hearOf(t *testing.T, alive *brokerv1.Alive) {
	t.Helper()
	data, err := alive.MarshalVT()
	require.NoError(t, err)
	f.hear(&nats.Msg{Data: data})
}

// The records of an instance that went silent may be missing. Settled returns the time since which no instance has gone.
func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{})
		require.Equal(t, time.Now(), f.Settled("gateway"), "nobody was heard of yet")
		f = hears()
		begun := time.Now()
		time.Sleep(time.Hour)
		for _, instance := range []string{"a", "b", "c"} {
			f.hearOf(t, &brokerv1.Alive{Instance: instance, Service: "gateway"})
		}
		require.Equal(t, begun, f.Settled("gateway"))

		time.Sleep(time.Second)
		f.hearOf(t, &brokerv1.Alive{Instance: "b", Service: "gateway", Leaving: true})
		left := time.Now()
		time.Sleep(time.Second)
		require.Equal(t, left, f.Settled("gateway"))
		require.Equal(t, begun, f.Settled("delivery"))
		require.Len(t, f.Members("gateway"), 2)

		f.hearOf(t, &brokerv1.Alive{Instance: "a", Service: "gateway"})
		f.hearOf(t, &brokerv1.Alive{Instance: "c", Service: "gateway"})
		beats := func(n int, instances ...string) {
			for range n {
				time.Sleep(beat)
				for _, instance := range instances {
					f.hearOf(t, &brokerv1.Alive{Instance: instance, Service: "gateway"})
				}
			}
		}
		beats(4, "a")
		require.Len(t, f.Members("gateway"), 1)
		require.Equal(t, time.Now(), f.Settled("gateway"), "one that says nothing may be at work")
		beats(1, "a", "c")
		require.Len(t, f.Members("gateway"), 2)
		require.Equal(t, left, f.Settled("gateway"), "it was there all the time")
		heard := time.Now()
		beats(int(doubt/beat)+1, "a")
		require.Equal(t, heard.Add(doubt), f.Settled("gateway"), "but not for ever")
	})
}

// The number of remembered instances is bounded. Instances that were removed still count for Settled.
func TestSettledWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := hears()
		for i := range maxMembers {
			f.hearOf(t, &brokerv1.Alive{Instance: strconv.Itoa(i), Service: "gateway", Leaving: true})
		}
		left := time.Now()
		time.Sleep(time.Second)
		f.hearOf(t, &brokerv1.Alive{Instance: "new", Service: "gateway"})
		require.Len(t, f.members, 1)
		require.Equal(t, left, f.Settled("gateway"))
		for i := range maxMembers {
			f.hearOf(t, &brokerv1.Alive{Instance: strconv.Itoa(i), Service: "gateway"})
		}
		require.Len(t, f.members, maxMembers)
		require.Equal(t, time.Now(), f.Settled("gateway"), "there was no room for one of them")
	})
}
