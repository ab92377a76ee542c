package otlptest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Span is one span as it was exported. Ids are in hex; Parent is empty for the root of a trace.
type Span struct {
	Service, Name       string
	TraceID, ID, Parent string
	Begin, End          time.Time
	// Attributes contains attributes that are text, numbers or booleans; lists are left out.
	Attributes map[string]any
	Links      []Link
	// Events are the names of the span's events.
	Events []string
	// Failure is the error message of a span that ended in an error; empty otherwise.
	Failure string
}

// Link refers to a span, usually of another trace.
type Link struct{ TraceID, ID string }

// Spans are spans of any number of traces, in the order in which they were received.
type Spans []Span

// Named returns the spans with a name.
func (s Spans) Named(name string) Spans {
	return s.where(func(span Span) bool { return span.Name == name })
}

// Of returns the spans of a service.
func (s Spans) Of(service string) Spans {
	return s.where(func(span Span) bool { return span.Service == service })
}

// Trace returns the spans of one trace.
func (s Spans) Trace(id string) Spans {
	return s.where(func(span Span) bool { return span.TraceID == id })
}

// Orphans returns the spans whose parent is missing; at these spans the trace is incomplete.
func (s Spans) Orphans() Spans {
	return s.where(func(span Span) bool { return span.Parent != "" && s.find(span.TraceID, span.Parent) == nil })
}

// Roots returns the spans without a parent.
func (s Spans) Roots() Spans { return s.where(func(span Span) bool { return span.Parent == "" }) }

// ParentOf returns the parent of a span; the zero value if the span has no parent or its parent was not received.
func (s Spans) ParentOf(span Span) Span {
	if parent := s.find(span.TraceID, span.Parent); parent != nil {
		return *parent
	}
	return Span{}
}

// Linked reports whether one of the spans is linked to the span to.
func (s Spans) Linked(to Span) bool {
	return slices.ContainsFunc(s, func(span Span) bool { return slices.Contains(span.Links, Link{TraceID: to.TraceID, ID: to.ID}) })
}

func (s Spans) where(holds func(Span) bool) Spans {
	var some Spans
	for _, span := range s {
		if holds(span) {
			some = append(some, span)
		}
	}
	return some
}

func (s Spans) find(traceID, id string) *Span {
	for i := range s {
		if s[i].TraceID == traceID && s[i].ID == id {
			return &s[i]
		}
	}
	return nil
}

// Tree shows every trace as a tree, so that a person can see which spans are missing:
//
//	trace 0af7651916cd43dd8448eb211c80319c
//	  runnel.client.send               0.0 ms + 3.1 ms  test-client
//	    runnel.gateway.receive         0.4 ms + 2.2 ms  runnel-gateway
//
// A span whose parent was not received is shown as a root, with a question mark.
func (s Spans) Tree() string {
	var text strings.Builder
	sorted := slices.Clone(s)
	slices.SortStableFunc(sorted, func(a, b Span) int { return a.Begin.Compare(b.Begin) })
	for i, span := range sorted {
		if slices.ContainsFunc(sorted[:i], func(before Span) bool { return before.TraceID == span.TraceID }) {
			continue
		}
		trace := sorted.Trace(span.TraceID)
		fmt.Fprintf(&text, "trace %s\n", span.TraceID)
		trace.branches(&text, trace.Roots(), "  ", trace[0].Begin)
		trace.branches(&text, trace.Orphans(), "? ", trace[0].Begin)
	}
	if text.Len() == 0 {
		return "no spans"
	}
	return text.String()
}

func (s Spans) branches(text *strings.Builder, from Spans, indent string, zero time.Time) {
	slices.SortStableFunc(from, func(a, b Span) int { return cmp.Or(a.Begin.Compare(b.Begin), strings.Compare(a.Name, b.Name)) })
	for _, span := range from {
		fmt.Fprintf(text, "%-60s %8.1f ms + %6.1f ms  %s", indent+span.Name, ms(span.Begin.Sub(zero)), ms(span.End.Sub(span.Begin)), span.Service)
		if span.Failure != "" {
			fmt.Fprintf(text, "  failed: %s", span.Failure)
		}
		text.WriteByte('\n')
		children := s.where(func(other Span) bool { return other.Parent == span.ID })
		s.branches(text, children, indent+"  ", zero)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
