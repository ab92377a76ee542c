package torture

import (
	"context"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// settle checks I9: after the last fault everything works again, within a generous time. A fresh message is committed in
// every conversation, all waiting commands are answered, and every device of every member has all events. The store's
// cursors show that they have.
func (r *run) settle(ctx context.Context) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, live)
	defer cancel()
	heads, members, err := r.heads(ctx)
	if err != nil {
		r.record.Violated(violation("I9", "the database does not answer: %v", err))
		return
	}
	fresh := 0
	for id := range heads {
		for _, d := range r.devices {
			if _, member := members[id][d.reader.User]; !member {
				continue
			}
			s, err := d.send(id, message("is everybody there?"))
			if err != nil {
				r.record.Violated(violation("I9", "%v", err))
				return
			}
			fresh++
			select {
			case <-s.done:
			case <-ctx.Done():
				r.record.Violated(violation("I9", "%s was not answered within %v after the last fault", s.key, live))
				return
			}
			// A member who has left meanwhile is refused; then the next member sends.
			if s.answer.Seq > 0 {
				break
			}
		}
	}
	r.report.LiveAfter = seconds(time.Since(begun))
	r.sayf("a fresh message in each of %d conversations was committed within %v", fresh, time.Since(begun).Round(time.Millisecond))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for _, d := range r.devices {
			d.waiting.Wait()
		}
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		for _, d := range r.devices {
			d.mu.Lock()
			for _, s := range d.pending {
				r.record.Violated(violation("I9", "%s was asked %v ago and has no answer", s.key, time.Since(s.asked).Round(time.Millisecond)))
			}
			d.mu.Unlock()
		}
		return
	}
	r.report.AnsweredAfter = seconds(time.Since(begun))
	var missing []Violation
	for {
		if missing = r.missing(ctx); len(missing) == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-ctx.Done():
		}
		r.record.Violated(missing...)
		return
	}
	r.report.DeliveredAfter = seconds(time.Since(begun))
	r.sayf("everything was answered, delivered and acknowledged within %v after the last fault", time.Since(begun).Round(time.Millisecond))
}

// heads retries until the database answers, because existing connections may be from before its restart.
func (r *run) heads(ctx context.Context) (heads map[string]uint64, members map[string]map[string]uint64, err error) {
	for {
		if heads, members, err = r.database.Heads(ctx); err == nil || launch.Sleep(ctx, 50*time.Millisecond) != nil {
			return heads, members, err
		}
	}
}

// missing returns the events that members have not received yet.
func (r *run) missing(ctx context.Context) (missing []Violation) {
	heads, members, err := r.database.Heads(context.WithoutCancel(ctx))
	if err != nil {
		return []Violation{violation("I9", "the database does not answer: %v", err)}
	}
	for id, head := range heads {
		for _, d := range r.devices {
			delivered, member := members[id][d.reader.User]
			last, known := d.positionOf(id)
			switch {
			case !member && known:
				missing = append(missing, violation("I9", "%s still has %s, up to seq %d, and is no member", d.reader, id, last))
			case !member:
			case !known:
				missing = append(missing, violation("I9", "%s was never told of %s", d.reader, id))
			case last != head:
				missing = append(missing, violation("I9", "%s has %s up to seq %d; the head is %d", d.reader, id, last, head))
			case delivered != head:
				missing = append(missing, violation("I9", "the store has %s in %s at seq %d; it was shown %d", d.reader.User, id, delivered, last))
			}
		}
		for _, o := range r.observers {
			_, member := members[id][o.reader.User]
			if last, known := o.positionOf(id); member && (!known || last != head) {
				missing = append(missing, violation("I9", "%s has %s up to seq %d; the head is %d", o.reader, id, last, head))
			}
		}
	}
	return missing
}
