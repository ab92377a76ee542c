package frame

import "strconv"

// maxDepth limits the length of a path. The schema of messages that are decoded field by field is at most 7 levels deep,
// and decoding descends only into fields of the schema. A test checks this.
const maxDepth = 16

// path is the decoder's position in a frame. It consists of names of the schema and indexes of lists, contains no data, and
// is formatted only for an error.
type path struct {
	steps [maxDepth]step
	depth int
}

type step struct {
	name string
	// place is 1 + the index in a list; 0 if the field is not a list.
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

// at sets the index in the list at the end of the path.
func (p *path) at(index int) { p.steps[p.depth-1].place = index + 1 }

// next advances to the next element.
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
