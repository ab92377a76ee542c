package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// churn changes the members of one group: its owner adds and removes members, members leave, and a member renames the
// group. Refusals because of a changed state are expected.
type churn struct {
	id     string
	owner  *device
	others []*device
}

// run changes members until ctx ends.
func (c *churn) run(ctx context.Context, random *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-time.After(100*time.Millisecond + time.Duration(random.Int64N(int64(900*time.Millisecond)))):
		case <-ctx.Done():
			return
		}
		other := c.others[random.IntN(len(c.others))]
		by, body := c.owner, add(other.reader.User)
		switch random.IntN(5) {
		case 0:
			body = remove(other.reader.User)
		case 1:
			by, body = other, &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}
		case 2:
			body = &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: fmt.Sprintf("name %d", n)}}}
		}
		if _, err := by.send(c.id, body); err != nil && ctx.Err() == nil {
			c.owner.record.Violated(violation("client", "%v", err))
			return
		}
	}
}

// found creates groups from time to time, until ctx ends.
func found(ctx context.Context, random *rand.Rand, devices []*device) {
	for n := 0; ; n++ {
		select {
		case <-time.After(3*time.Second + time.Duration(random.Int64N(int64(5*time.Second)))):
		case <-ctx.Done():
			return
		}
		chosen := random.Perm(len(devices))
		if _, err := devices[chosen[0]].send("", group(fmt.Sprintf("late %d", n), users(devices, chosen)[:3]...)); err != nil && ctx.Err() == nil {
			devices[0].record.Violated(violation("client", "%v", err))
			return
		}
	}
}

// users returns the users of devices in an order, each once, without the user of the first device.
func users(devices []*device, order []int) []string {
	seen := map[string]bool{devices[order[0]].reader.User: true}
	var names []string
	for _, i := range order {
		if name := devices[i].reader.User; !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

func group(name string, members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: name, Members: members,
	}}}
}

func direct(member string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{member},
	}}}
}

func add(member string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{member}}}}
}

func remove(member string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: member}}}
}
