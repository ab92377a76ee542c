package terminal

import (
	"fmt"
	"io"
	"reflect"
)

// Safe is text that is printed unchanged: the result of Sprintf, or text of the program itself.
type Safe string

// Name is Line for arguments of Sprintf and Fprintf.
func Name(text string) Safe { return Safe(Line(text)) }

// Sprintf is like fmt.Sprintf, but makes every text, error and Stringer among the arguments safe with Text. Arguments of
// type Safe are not changed.
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
				arg = Text(v.String()) // an id, or another type based on text
			}
			safe[i] = arg
		}
	}
	return Safe(fmt.Sprintf(format, safe...))
}

// Fprintf writes the result of Sprintf.
func Fprintf(w io.Writer, format string, args ...any) error {
	_, err := io.WriteString(w, string(Sprintf(format, args...)))
	return err
}
