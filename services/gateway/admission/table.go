package admission

import (
	"container/list"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// maxIdle limits the addresses that are remembered without having a connection. The one that was idle longest is forgotten first:
// its allowance has recovered most.
const maxIdle = 100_000

// table counts the connections of addresses or of networks. It is not safe for use by several goroutines.
type table struct {
	max   int     // connections of one
	rate  float64 // new connections a second of one, after a burst of ten times that
	peers map[netip.Prefix]*peer
	idle  list.List // peers without connections, the one that was idle longest first
}

// peer is one address or network. It stays in the table until its allowance is full again; otherwise a client could bypass the rate
// by closing and reconnecting at once.
type peer struct {
	key         netip.Prefix
	connections int
	attempts    *rate.Limiter
	idle        *list.Element // nil with connections
}

func newTable(most int, each float64) *table {
	return &table{max: most, rate: each, peers: map[netip.Prefix]*peer{}}
}

// peer returns the entry of an attempt to connect.
func (t *table) peer(key netip.Prefix) *peer {
	p := t.peers[key]
	switch {
	case p == nil:
		if t.idle.Len() >= maxIdle {
			t.forget(t.idle.Front())
		}
		p = &peer{key: key, attempts: rate.NewLimiter(rate.Limit(t.rate), max(int(10*t.rate), 1))}
		t.peers[key] = p
		p.idle = t.idle.PushBack(p)
	case p.idle != nil:
		t.idle.MoveToBack(p.idle)
	}
	return p
}

func (t *table) enter(p *peer) {
	if p.idle != nil {
		t.idle.Remove(p.idle)
		p.idle = nil
	}
	p.connections++
}

func (t *table) leave(key netip.Prefix) {
	p := t.peers[key]
	if p.connections--; p.connections == 0 {
		p.idle = t.idle.PushBack(p)
		if t.idle.Len() > maxIdle {
			t.forget(t.idle.Front())
		}
	}
}

func (t *table) forget(element *list.Element) {
	p, _ := t.idle.Remove(element).(*peer) // always is one
	delete(t.peers, p.key)
}

// purge forgets idle peers whose allowance is full again. All have the same rate, so those that were idle longest come first.
func (t *table) purge() {
	now := time.Now()
	for front := t.idle.Front(); front != nil; front = t.idle.Front() {
		if p, _ := front.Value.(*peer); p.attempts.TokensAt(now) < float64(p.attempts.Burst()) {
			return
		}
		t.forget(front)
	}
}
