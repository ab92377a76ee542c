package settings

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// rangeTag is the name of the tag with the allowed values of a number, see parseRange.
const rangeTag = "range"

// errRange is the error for a range tag that cannot be parsed.
var errRange = errors.New("a range is written as from..to, from.. or a value, several separated by commas")

// span is a part of a range: the values from low to high, inclusive.
type span struct {
	low, high float64
	open      bool // there is no upper end
}

// parseRange parses a range tag. It contains from..to, from.. without an upper end, or a single value; several are
// separated by commas. A duration is written like 1m30s.
func parseRange(tag string, typ reflect.Type) ([]span, error) {
	var spans []span
	for part := range strings.SplitSeq(tag, ",") {
		from, to, isRange := strings.Cut(part, "..")
		low, err := parseNumber(from, typ)
		if err != nil {
			return nil, err
		}
		s := span{low: low, high: low}
		switch {
		case isRange && to == "":
			s.open = true
		case isRange:
			if s.high, err = parseNumber(to, typ); err != nil {
				return nil, err
			}
		}
		spans = append(spans, s)
	}
	return spans, nil
}

func parseNumber(text string, typ reflect.Type) (float64, error) {
	if typ == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errRange, err)
		}
		return float64(d), nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRange, err)
	}
	return n, nil
}

// isNumber reports whether a type is a number or duration, so that its fields need a range. A type that is parsed from
// text is not a number, whatever its underlying type.
func isNumber(typ reflect.Type) bool {
	if reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return false
	}
	return typ.Kind() >= reflect.Int && typ.Kind() <= reflect.Float64 && typ.Kind() != reflect.Uintptr
}

func number(value reflect.Value) float64 {
	switch {
	case value.CanInt():
		return float64(value.Int())
	case value.CanUint():
		return float64(value.Uint())
	default:
		return value.Float()
	}
}

// checkRange returns an error if a value is outside its range. name is the name of the setting.
func checkRange(name, tag string, value reflect.Value) error {
	spans, err := parseRange(tag, value.Type())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	n := number(value)
	for _, s := range spans {
		if n >= s.low && (s.open || n <= s.high) { // false for NaN
			return nil
		}
	}
	return fmt.Errorf("%s is %v: must be %s", name, value.Interface(), inWords(tag))
}

// inWords describes a range in words, for errors and the help.
func inWords(tag string) string {
	parts := strings.Split(tag, ",")
	for i, part := range parts {
		switch from, to, isRange := strings.Cut(part, ".."); {
		case isRange && to == "":
			parts[i] = "at least " + from
		case isRange:
			parts[i] = from + " to " + to
		}
	}
	return strings.Join(parts, " or ")
}

// CheckRanges checks every number of a configuration against its range tag. cfg is a struct with the tags of this
// package. A number without a range is also an error. prefix is the section of the configuration, ending with a dot.
// Programs need not call CheckRanges, because Parse checks all settings. It is for the Validate method of a configuration
// that is also made in code.
func CheckRanges(prefix string, cfg any) error {
	value := reflect.Indirect(reflect.ValueOf(cfg))
	for i := range value.NumField() {
		field := value.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		if field.Type.Kind() == reflect.Struct {
			if _, embedded := field.Tag.Lookup("embed"); !embedded && !field.Anonymous {
				continue
			}
			if err := CheckRanges(prefix+field.Tag.Get("prefix"), value.Field(i).Interface()); err != nil {
				return err
			}
			continue
		}
		if !isNumber(field.Type) {
			continue
		}
		name := prefix + keyOf(field)
		tag, found := field.Tag.Lookup(rangeTag)
		if !found {
			return fmt.Errorf("%s has no range tag", name)
		}
		if err := checkRange(name, tag, value.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// keyOf returns the name of a setting in its section, as kong derives it.
func keyOf(field reflect.StructField) string {
	if name := field.Tag.Get("name"); name != "" {
		return name
	}
	return kebab(field.Name)
}

// kebab returns max-connections-per-ip for MaxConnectionsPerIP.
func kebab(name string) string {
	var words strings.Builder
	for i := range len(name) {
		upper := name[i] >= 'A' && name[i] <= 'Z'
		afterLower := i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z'
		beforeLower := i > 0 && i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z'
		if upper && (afterLower || beforeLower) {
			words.WriteByte('-')
		}
		words.WriteByte(name[i])
	}
	return strings.ToLower(words.String())
}

// checkFlag checks that a number has a range, and that its value is within the range.
func checkFlag(flag *kong.Flag) error {
	if !isNumber(flag.Target.Type()) || flag.Tag.Has(secretTag) {
		return nil
	}
	if !flag.Tag.Has(rangeTag) {
		return fmt.Errorf("--%s: a number needs a range tag", flag.Name)
	}
	_, err := parseRange(flag.Tag.Get(rangeTag), flag.Target.Type())
	if err != nil {
		return fmt.Errorf("--%s: %w", flag.Name, err)
	}
	return nil
}

// validator is implemented by configurations that check rules about several settings, or about texts.
type validator interface{ Validate() error }

// validate calls the Validate method of every configuration inside the selected commands. kong itself calls it only for
// commands.
func validate(ctx *kong.Context) error {
	for _, path := range ctx.Path {
		node := path.Node()
		if node == nil || path.Flag != nil || path.Positional != nil || !node.Target.IsValid() {
			continue
		}
		if err := validateParts(node.Target); err != nil {
			return err
		}
	}
	return nil
}

func validateParts(value reflect.Value) error {
	value = reflect.Indirect(value)
	if value.Kind() != reflect.Struct {
		return nil
	}
	for i := range value.NumField() {
		field := value.Type().Field(i)
		_, embedded := field.Tag.Lookup("embed")
		if !field.IsExported() && !field.Anonymous || !embedded && !field.Anonymous {
			continue
		}
		part := value.Field(i)
		if part.CanInterface() {
			if v, ok := reflect.TypeAssert[validator](part); ok {
				if err := v.Validate(); err != nil {
					return err
				}
				continue // this configuration validates its parts itself
			}
		}
		if err := validateParts(part); err != nil {
			return err
		}
	}
	return nil
}
