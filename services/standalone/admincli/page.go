package admincli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/terminal"
)

// print prints an answer: as JSON, or as the page that draw makes from it.
func (s *session) print(answer proto.Message, draw func(p *page)) error {
	if s.json {
		return printJSON(s.Out, answer)
	}
	p := &page{console: s.Console, out: tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)}
	draw(p)
	return p.out.Flush()
}

// printJSON prints one object on one line. It removes the white space that protojson varies on purpose, because scripts
// compare the line.
func printJSON(w io.Writer, answer proto.Message) error {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	line.WriteByte('\n')
	_, err = w.Write(terminal.JSON(line.Bytes()))
	return err
}

// notef prints a note on standard error, so that scripts do not read it as part of the answer.
func (s *session) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Err, format+"\n", cleaned(args)...)
}

// page is the readable output of a command. It is buffered until it is flushed, so writes to it never fail.
type page struct {
	console Console
	out     *tabwriter.Writer
}

// row prints a row of a table; the first row is the header. A row without cells ends the table.
func (p *page) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = clean(cell)
		if cells[i] == "" {
			cells[i] = "-" // an empty last cell would cause trailing white space
		}
	}
	_, _ = fmt.Fprintln(p.out, strings.Join(cells, "\t"))
}

// gap prints an empty line.
func (p *page) gap() { p.row() }

// linef prints text that is not part of a table.
func (p *page) linef(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format+"\n", cleaned(args)...)
}

// cleaned returns the arguments of a format with safe texts; see clean.
func cleaned(args []any) []any {
	for i, arg := range args {
		if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
			args[i] = clean(v.String())
		}
	}
	return args
}

// moment formats a server's time as local time with its age; "-" if the time is zero.
func (p *page) moment(unixMS int64) string {
	if unixMS == 0 {
		return ""
	}
	t := time.UnixMilli(unixMS)
	return t.In(p.console.Now().Location()).Format(time.RFC3339) + " (" + ago(p.console.Now().Sub(t)) + ")"
}

func ago(d time.Duration) string {
	// The clocks of two machines differ slightly, so a recent time may be in the future.
	if d < 0 && d > -2*time.Second {
		d = 0
	}
	if d < 0 {
		return "in " + span(-d)
	}
	if d < time.Second {
		return "now"
	}
	return span(d) + " ago"
}

// span formats a duration in its two largest units.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// size formats a number of bytes.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, units := float64(n)/unit, "KMGTPE"
	for value >= unit && len(units) > 1 {
		value, units = value/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}

func number[N uint32 | uint64 | int](n N) string { return strconv.FormatUint(uint64(n), 10) }

// word formats an enum value without the name of its enum: KIND_GROUP becomes group.
func word(value fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(value.String(), prefix), "_", " "))
}

// plural formats a count: "1 connection", "2 connections".
func plural[N uint32 | uint64 | int](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + one + "s"
}

// person returns the name of a user or device that operators know: the name that the token issuer uses. Every command
// also accepts the user id.
func person(id string) string { return conversation.OriginalUser(ids.User(id)) }

// clean makes text from users or servers safe to print: it cannot control the operator's terminal or break a table.
func clean(text string) string { return terminal.Line(text) }
