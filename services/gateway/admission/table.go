package admission

import (
	"container/list"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// maxIdle limits the number of remembered addresses without connections. Above the limit, the address that was idle
// longest is forgotten: its allowance has recovered most.
const maxIdle = 100_000

// table counts the connections of addresses or of networks. It is not safe for use by several goroutines.
type table struct {
	max   int     // limit of the connections of one peer
	rate  float64 // limit of a peer's new connections per second; the burst is ten times this rate
	peers map[netip.Prefix]*peer
	idle  list.List // peers without connections, the longest idle first
}

// peer is one address or network. It stays in the table until its allowance is full again; otherwise a client could bypass the rate
// by closing and reconnecting at once.
type peer struct {
	key         netip.Prefix
	connections int
	attempts    *rate.Limiter
	idle        *list.Element // the peer's element in table.idle; nil while the peer has connections
}

func newTable(most int, each float64) *table {
	return &table{max: most, rate: each, peers: map[netip.Prefix]*peer{}}
}

// peer returns the entry of an address or network that tries to connect. It adds the entry if there is none.
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
	p, _ := t.idle.Remove(element).(*peer) // the list contains only *peer
	delete(t.peers, p.key)
}

// purge forgets idle peers whose allowance is full again. All peers have the same rate, so the allowance of the longest
// idle peer is full first.
func (t *table) purge() {
	now := time.Now()
	for front := t.idle.Front(); front != nil; front = t.idle.Front() {
		if p, _ := front.Value.(*peer); p.attempts.TokensAt(now) < float64(p.attempts.Burst()) {
			return
		}
		t.forget(front)
	}
}
