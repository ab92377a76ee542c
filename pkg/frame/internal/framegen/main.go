// Command framegen generates the code of package frame for each message: the JSON encoder, the JSON decoder and the check
// of binary frames. Its input is compiled descriptors; no message is named in its code. The code that all messages share
// is written by hand in package frame. scripts/generate.sh runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	descriptors := flag.String("descriptors", "", "file with an encoded FileDescriptorSet")
	strict := flag.String("strict", "", "full names of messages that are decoded strictly, separated by commas")
	lenient := flag.String("lenient", "", "full names of messages that are decoded leniently, separated by commas")
	out := flag.String("out", "", "directory to write to")
	name := flag.String("name", "%s_gen.go", "name of the files, with %s for their content")
	flag.Parse()
	if err := run(*descriptors, *out, *name, list(*strict), list(*lenient)); err != nil {
		fmt.Fprintln(os.Stderr, "framegen:", err)
		os.Exit(1)
	}
}

func list(names string) []string {
	return strings.FieldsFunc(names, func(r rune) bool { return r == ',' })
}

func run(descriptors, out, name string, strict, lenient []string) error {
	data, err := os.ReadFile(descriptors)
	if err != nil {
		return fmt.Errorf("read the descriptors: %w", err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return fmt.Errorf("decode %s: %w", descriptors, err)
	}
	files, err := generate(set, strict, lenient)
	if err != nil {
		return err
	}
	for content, source := range files {
		path := filepath.Join(out, fmt.Sprintf(name, content))
		if err := os.WriteFile(path, source, 0o600); err != nil {
			return fmt.Errorf("write the generated code: %w", err)
		}
	}
	return nil
}
