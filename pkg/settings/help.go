package settings

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// describe sets the group of a flag. If the field has no placeholder, describe sets one for the type of its value: kong
// would use the default, which the text already states.
func describe(flag *kong.Flag) {
	if prefix := sectionOf(flag.Name); prefix != "" && flag.Group == nil {
		flag.Group = &kong.Group{Key: prefix, Title: prefix + " settings:"}
	}
	if flag.PlaceHolder != "" || flag.IsBool() || flag.IsMap() {
		return
	}
	typ := flag.Target.Type()
	if flag.IsSlice() {
		typ = typ.Elem()
	}
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		flag.PlaceHolder = "DURATION"
	case typ.Kind() == reflect.String:
		flag.PlaceHolder = "TEXT"
	case typ.Kind() == reflect.Float32 || typ.Kind() == reflect.Float64:
		flag.PlaceHolder = "NUMBER"
	case typ.Kind() >= reflect.Int && typ.Kind() <= reflect.Uint64:
		flag.PlaceHolder = "INTEGER"
	}
}

func sectionOf(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i]
	}
	return ""
}

// formatHelp returns the help text of a flag: its description, its possible values, its default, and its environment
// variables.
func formatHelp(value *kong.Value) string {
	var facts []string
	if value.Enum != "" {
		facts = append(facts, strings.Join(value.EnumSlice(), " | "))
	}
	if value.HasDefault && value.Default != "" {
		facts = append(facts, "default "+value.Default)
	}
	if tag := value.Tag.Get(rangeTag); tag != "" {
		facts = append(facts, inWords(tag))
	}
	for _, env := range value.Tag.Envs {
		facts = append(facts, "$"+env)
	}
	if len(facts) == 0 {
		return value.Help
	}
	return strings.TrimSpace(value.Help + " (" + strings.Join(facts, ", ") + ")")
}

// printHelp prints kong's help, and the secrets, which have no flags.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	var secrets []*kong.Flag
	for _, flag := range ctx.Flags() {
		if flag.Tag.Has(secretTag) {
			secrets = append(secrets, flag)
		}
	}
	if len(secrets) == 0 {
		return nil
	}
	_, err := fmt.Fprint(ctx.Stdout, "\nSecrets, from the environment or the settings file only; with _FILE behind its name a variable names a file to read:\n")
	for _, flag := range secrets {
		if err == nil {
			_, err = fmt.Fprintf(ctx.Stdout, "  $%s (%s in the settings file)\n      %s\n", flag.Envs[0], flag.Name, flag.Help)
		}
	}
	return err
}
