package readme

import "strings"

// fence is a fenced block of a page.
type fence struct {
	language string
	line     int // number of its first line in the page, from 1
	text     string
}

// fences returns the fenced blocks of a page in a language.
func fences(page, language string) []fence {
	var all []fence
	var open *fence
	number := 0
	for line := range strings.Lines(page) {
		number++
		mark, isMark := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isMark && open == nil:
			open = &fence{language: mark, line: number + 1}
		case isMark:
			if open.language == language {
				all = append(all, *open)
			}
			open = nil
		case open != nil:
			open.text += line
		}
	}
	return all
}
