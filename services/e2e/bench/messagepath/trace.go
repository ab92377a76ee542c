package messagepath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime/trace"
	"slices"
	"strings"

	exptrace "golang.org/x/exp/trace"
)

// calls are counts of system calls.
type calls struct{ reads, writes, syncs, other int }

// activity is what a trace shows, by stage. A wake-up belongs to the stage of the goroutine that is woken.
type activity struct {
	handed  [stages]int // wake-ups by another goroutine
	woken   [stages]int // wake-ups by the network or a timer
	begun   [stages]int // goroutines started
	calls   [stages]calls
	details map[string]int // what happened, by its description
}

// category is that of the mark in a trace from which on events count.
const category = "messagepath"

// traced records an execution trace of two functions, and returns what happened in the second. The first one must let every goroutine
// of the path run once: where a goroutine waits is known only if it began to wait within the trace.
func traced(before, during func() error) (*activity, error) {
	var recorded bytes.Buffer
	if err := trace.Start(&recorded); err != nil {
		return nil, fmt.Errorf("start an execution trace: %w", err)
	}
	err := before()
	if err == nil {
		trace.Log(context.Background(), category, "count from here")
		err = during()
	}
	trace.Stop()
	if err != nil {
		return nil, err
	}
	return readTrace(&recorded)
}

// readTrace counts the events of an execution trace.
func readTrace(recorded io.Reader) (*activity, error) {
	events, err := exptrace.NewReader(recorded)
	if err != nil {
		return nil, fmt.Errorf("read an execution trace: %w", err)
	}
	a := &activity{details: map[string]int{}}
	waiting := map[exptrace.GoID]frame{} // where each goroutine waits
	counting := false
	for {
		event, err := events.ReadEvent()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read an execution trace: %w", err)
		}
		if event.Kind() == exptrace.EventLog && event.Log().Category == category {
			counting = true
		}
		if event.Kind() != exptrace.EventStateTransition {
			continue
		}
		change := event.StateTransition()
		if change.Resource.Kind != exptrace.ResourceGoroutine {
			continue
		}
		id := change.Resource.Goroutine()
		switch from, to := change.Goroutine(); {
		case to == exptrace.GoWaiting && from != exptrace.GoRunning:
			// Each part of a trace lists all goroutines anew.
		case to == exptrace.GoWaiting:
			at := place(functions(change.Stack))
			at.function += " (" + change.Reason + ")"
			waiting[id] = at
		case !counting:
		case from == exptrace.GoWaiting && to == exptrace.GoRunnable:
			a.wake(event, waiting[id])
		case from == exptrace.GoNotExist && to == exptrace.GoRunnable:
			if by := place(functions(event.Stack())); by.stage != stageLoad {
				a.begun[by.stage]++
				a.details["start a goroutine: "+by.function]++
			}
		case from == exptrace.GoRunning && to == exptrace.GoSyscall:
			a.call(change.Stack)
		}
	}
}

// wake counts one wake-up of a goroutine that waited at a place.
func (a *activity) wake(event exptrace.Event, waited frame) {
	if waited.function == "" {
		waited = frame{stageOther, "before the trace"} // it began to wait before the trace
	}
	if waited.stage == stageLoad {
		return
	}
	if event.Goroutine() == exptrace.NoGoroutine {
		a.woken[waited.stage]++
		a.details["network or timer → "+waited.function]++
		return
	}
	by := place(functions(event.Stack()))
	a.handed[waited.stage]++
	a.details["wake: "+by.function+" → "+waited.function]++
}

// The functions through which system calls are made, innermost first in a call stack.
var (
	syncing = regexp.MustCompile(`(?i)[._](x?f(data)?sync)$`)
	writing = regexp.MustCompile(`(?i)[._](x?p?writev?(64)?|sendto|sendmsg)$`)
	reading = regexp.MustCompile(`(?i)[._](x?p?readv?(64)?|recvfrom|recvmsg)$`)
)

// call counts one system call.
func (a *activity) call(stack exptrace.Stack) {
	by := place(functions(stack))
	if by.stage == stageLoad {
		return
	}
	counts, kind := &a.calls[by.stage], ""
	for function := range functions(stack) {
		switch {
		case syncing.MatchString(function):
			counts.syncs++
			kind = "sync"
		case writing.MatchString(function):
			counts.writes++
			kind = "write"
		case reading.MatchString(function):
			counts.reads++
			kind = "read"
		default:
			continue
		}
		break
	}
	if kind == "" {
		counts.other++
		kind = "system call " + leaf(stack)
	}
	a.details[kind+": "+by.function]++
}

// leaf describes a system call that is none of the known kinds: the innermost functions up to the first one outside the packages
// that make system calls.
func leaf(stack exptrace.Stack) string {
	var names []string
	for function := range functions(stack) {
		names = append(names, short(function))
		if len(names) == 4 {
			break
		}
	}
	slices.Reverse(names)
	return strings.Join(names, " > ")
}

func functions(stack exptrace.Stack) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for f := range stack.Frames() {
			if !yield(f.Func) {
				return
			}
		}
	}
}
