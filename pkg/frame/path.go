package frame

import "strconv"

// maxDepth bounds how deep a path can get. The schema of what is decoded field by field is at most 7 levels deep, and
// decoding only ever descends into fields of the schema; a test keeps it that way.
const maxDepth = 16

// path is where a decoder stands in a frame. It holds names of the schema and places in lists, nothing of the data, and
// becomes text only when there is an error to report.
type path struct {
	steps [maxDepth]step
	depth int
}

type step struct {
	name string
	// place is 1 + the index in a list; 0 for a field that is no list.
	place int
}

func (p *path) push(name string) bool {
	if p.depth == maxDepth {
		return false
	}
	p.steps[p.depth] = step{name: name}
	p.depth++
	return true
}

func (p *path) pop() { p.depth-- }

// at says which element of the list that the path ends in is being decoded.
func (p *path) at(index int) { p.steps[p.depth-1].place = index + 1 }

// next goes to the element after it.
func (p *path) next() { p.steps[p.depth-1].place++ }

func (p *path) String() string {
	var text []byte
	for i, step := range p.steps[:p.depth] {
		if i > 0 {
			text = append(text, '.')
		}
		text = append(text, step.name...)
		if step.place > 0 {
			text = append(text, '[')
			text = strconv.AppendInt(text, int64(step.place-1), 10)
			text = append(text, ']')
		}
	}
	return string(text)
}
