package terminal

import (
	"fmt"
	"io"
	"reflect"
)

// Safe is text that is printed as it is: the result of Sprintf, or text of the program's own.
type Safe string

// Name is Line for the arguments of Sprintf and Fprintf.
func Name(text string) Safe { return Safe(Line(text)) }

// Sprintf is fmt.Sprintf with every text, error and Stringer among the arguments made safe by Text; those of type Safe stay as they
// are.
func Sprintf(format string, args ...any) Safe {
	safe := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case Safe:
			safe[i] = string(arg)
		case string:
			safe[i] = Text(arg)
		case error:
			safe[i] = Text(arg.Error())
		case fmt.Stringer:
			safe[i] = Text(arg.String())
		default:
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				arg = Text(v.String()) // an id, or another type made of text
			}
			safe[i] = arg
		}
	}
	return Safe(fmt.Sprintf(format, safe...))
}

// Fprintf writes what Sprintf returns.
func Fprintf(w io.Writer, format string, args ...any) error {
	_, err := io.WriteString(w, string(Sprintf(format, args...)))
	return err
}
