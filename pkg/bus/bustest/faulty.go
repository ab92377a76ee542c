package bustest

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/runnelhq/runnel/pkg/bus"
)

// Faulty is a bus that loses, repeats and delays messages at random, like a network with failing servers. A delayed
// message arrives after later ones. If all probabilities are zero, it is a correct bus.
type Faulty struct {
	bus.Bus

	// Lose, Repeat and Delay are the probabilities of each fault, from 0 to 1.
	Lose, Repeat, Delay float64

	mu      sync.Mutex
	random  *rand.Rand
	delayed []*nats.Msg
	faults  int
}

// maxDelayed limits the number of delayed messages.
const maxDelayed = 8

// NewFaulty makes a bus that adds faults to the bus b. With the same seed it makes the same decisions.
func NewFaulty(b bus.Bus, seed uint64) *Faulty {
	return &Faulty{Bus: b, random: rand.New(rand.NewPCG(seed, seed))}
}

// Faults returns the number of faults so far.
func (f *Faulty) Faults() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults
}

// PublishMsg implements bus.Bus.
func (f *Faulty) PublishMsg(msg *nats.Msg) error {
	for _, one := range f.decide(msg) {
		if err := f.Bus.PublishMsg(one); err != nil {
			return err
		}
	}
	return nil
}

// decide returns the messages to publish now.
func (f *Faulty) decide(msg *nats.Msg) []*nats.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	draw := f.random.Float64()
	switch {
	case draw < f.Lose:
		f.faults++
		return nil
	case draw < f.Lose+f.Repeat:
		f.faults++
		return []*nats.Msg{msg, msg}
	case draw < f.Lose+f.Repeat+f.Delay && len(f.delayed) < maxDelayed:
		f.faults++
		f.delayed = append(f.delayed, &nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: slices.Clone(msg.Data)})
		return nil
	}
	late := f.delayed
	f.delayed = nil
	return append([]*nats.Msg{msg}, late...)
}
