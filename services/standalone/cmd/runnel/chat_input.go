package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxLine is the maximum length of an input line, in bytes. It is large enough for a command with many users; the limit
// of a message is lower.
const maxLine = 64 << 10

var (
	errLongLine = fmt.Errorf("a line is longer than %d bytes and was not sent", maxLine)
	errNotUTF8  = errors.New("a line is not UTF-8 and was not sent")
)

// input is one line of input, or the reason why there is none.
type input struct {
	line string
	// err is errLongLine or errNotUTF8 if the line is skipped. Any other error, including io.EOF, means the end of the
	// input.
	err error
}

// readLines reads the lines of an input until its end or until stop is closed. Its goroutine may run longer, because a
// read from a terminal cannot be interrupted.
func readLines(in io.Reader, stop <-chan struct{}) <-chan input {
	lines := make(chan input)
	go func() {
		reader := bufio.NewReaderSize(in, maxLine+len("\r\n"))
		for {
			next, end := readLine(reader)
			for _, i := range []*input{next, end} {
				if i == nil {
					continue
				}
				select {
				case lines <- *i:
				case <-stop:
					return
				}
			}
			if end != nil {
				return
			}
		}
	}()
	return lines
}

// readLine reads one line. If end is not nil, the input has ended; next may then be nil.
func readLine(reader *bufio.Reader) (next, end *input) {
	read, err := reader.ReadSlice('\n')
	line := bytes.TrimSuffix(bytes.TrimSuffix(read, []byte("\n")), []byte("\r"))
	switch long := errors.Is(err, bufio.ErrBufferFull); {
	case long || len(line) > maxLine:
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = reader.ReadSlice('\n')
		}
		next = &input{err: errLongLine}
	case !utf8.Valid(line):
		next = &input{err: errNotUTF8}
	case len(line) > 0 || err == nil:
		next = &input{line: string(line)}
	}
	if err != nil {
		end = &input{err: err}
	}
	return next, end
}
