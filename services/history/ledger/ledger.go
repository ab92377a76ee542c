// Package ledger keeps a record of every erasure in a file apart from the database. After a restore from an older backup,
// the erasures are repeated from this file before the content can be read. Each line of JSON is one erasure; it is on
// disk before the erasure is committed. The file contains ids and numbers, but no content.
package ledger

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Entry is one erasure.
type Entry struct {
	// ConversationID and Seq identify the event that requested the erasure.
	ConversationID ids.Conversation `json:"conversation_id"`
	Seq            ids.Seq          `json:"seq"`
	// TimeMs is the time of that event.
	TimeMs int64 `json:"time_ms"`

	// The fields of historyv1.EraseEvents, which describe the content to erase.
	Seqs      []uint64                   `json:"seqs,omitempty"`
	Sender    ids.User                   `json:"sender,omitempty"`
	BeforeMs  int64                      `json:"before_ms,omitempty"`
	Targeting bool                       `json:"targeting,omitempty"`
	Kinds     []conversationv1.EventKind `json:"kinds"`
	Below     ids.Seq                    `json:"below"`

	// Hashes are the first bytes of the hashes of Seqs, in hex; empty for an event that did not exist. If the log went
	// back and other events have the same seqs now, the hashes distinguish them.
	Hashes []string `json:"hashes,omitempty"`
}

// NewEntry makes the entry of an effect. hashes contains the hashes of the events in it.
func NewEntry(event *conversationv1.Event, erase *historyv1.EraseEvents, hashes map[uint64][]byte) Entry {
	entry := Entry{
		ConversationID: ids.Conversation(event.GetConversationId()), Seq: ids.Seq(event.GetSeq()), TimeMs: event.GetTimeMs(),
		Seqs: erase.GetSeqs(), Sender: ids.User(erase.GetSender()), BeforeMs: erase.GetBeforeMs(), Targeting: erase.GetTargeting(),
		Kinds: erase.GetKinds(), Below: ids.Seq(erase.GetBelow()),
	}
	for _, seq := range erase.GetSeqs() {
		entry.Hashes = append(entry.Hashes, prefix(hashes[seq]))
	}
	return entry
}

func prefix(hash []byte) string { return hex.EncodeToString(hash[:min(chain.PrefixSize, len(hash))]) }

// Ledger is the file. Entries of concurrent calls are written one after another. A nil Ledger records nothing.
type Ledger struct {
	path string

	mu   sync.Mutex
	file *os.File
}

// New makes a ledger in a file. The file is created at the first write. New returns nil for an empty path.
func New(path string) *Ledger {
	if path == "" {
		return nil
	}
	return &Ledger{path: path}
}

// Record writes entries, and returns when they are on disk.
func (l *Ledger) Record(entries []Entry) error {
	if l == nil || len(entries) == 0 {
		return nil
	}
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, entry := range entries {
		if err := encoder.Encode(entry); err != nil {
			return fmt.Errorf("encode an entry of the erase ledger: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.write(lines.Bytes()); err != nil {
		// The next call opens the file again, and ends a partly written line.
		if l.file != nil {
			_ = l.file.Close()
			l.file = nil
		}
		return fmt.Errorf("write the erase ledger: %w", err)
	}
	return nil
}

func (l *Ledger) write(lines []byte) error {
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if _, err := l.file.Write(lines); err != nil {
		return err
	}
	return l.file.Sync()
}

// open opens the file for appending. If the last line was partly written, open begins a new line.
func (l *Ledger) open() (err error) {
	if l.file, err = os.OpenFile(l.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	directory, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	if err := errors.Join(directory.Sync(), directory.Close()); err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := l.file.ReadAt(last, info.Size()-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		_, err = l.file.WriteString("\n")
	}
	return err
}

// Check reports whether the file can be opened for writing.
func (l *Ledger) Check() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		return nil // a failed write closes the file, so the last write succeeded
	}
	if err := l.open(); err != nil {
		if l.file != nil {
			_ = l.file.Close()
			l.file = nil
		}
		return fmt.Errorf("open the erase ledger: %w", err)
	}
	return nil
}

// Close closes the file.
func (l *Ledger) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return file.Close()
}

// Read reads a ledger. damaged counts the lines that are not valid entries. A partly written line belongs to an erasure
// that was not committed; the line is written again when the erasure is repeated.
func Read(path string) (entries []Entry, damaged int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	reader := bufio.NewReader(file)
	for {
		line, err := reader.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			var entry Entry
			if json.Unmarshal(line, &entry) != nil || entry.ConversationID == "" {
				damaged++
			} else {
				entries = append(entries, entry)
			}
		}
		if err != nil {
			return entries, damaged, nil
		}
	}
}
