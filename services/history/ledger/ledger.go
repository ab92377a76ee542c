// Package ledger keeps a record of every erasure apart from the database, so that a database that is restored from an older
// backup can be erased from again before anybody reads it. One line of JSON stands for one erasure; a line is on disk
// before the erasure is committed. The file holds ids and numbers, and no content.
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
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Entry is one erasure.
type Entry struct {
	// ConversationID and Seq name the event that asked for it.
	ConversationID string `json:"conversation_id"`
	Seq            uint64 `json:"seq"`
	// TimeMs is the time of that event.
	TimeMs int64 `json:"time_ms"`

	// What is erased, as in historyv1.EraseEvents.
	Seqs      []uint64                   `json:"seqs,omitempty"`
	Sender    string                     `json:"sender,omitempty"`
	BeforeMs  int64                      `json:"before_ms,omitempty"`
	Targeting bool                       `json:"targeting,omitempty"`
	Kinds     []conversationv1.EventKind `json:"kinds"`
	Below     uint64                     `json:"below"`

	// Hashes are the first bytes of the hashes of Seqs, in hex; empty for an event that was not there. They tell the events
	// from others that have taken their place after the log went back.
	Hashes []string `json:"hashes,omitempty"`
}

// NewEntry makes the entry of an effect. hashes holds the hashes of the events that it names.
func NewEntry(event *conversationv1.Event, erase *historyv1.EraseEvents, hashes map[uint64][]byte) Entry {
	entry := Entry{
		ConversationID: event.GetConversationId(), Seq: event.GetSeq(), TimeMs: event.GetTimeMs(),
		Seqs: erase.GetSeqs(), Sender: erase.GetSender(), BeforeMs: erase.GetBeforeMs(), Targeting: erase.GetTargeting(),
		Kinds: erase.GetKinds(), Below: erase.GetBelow(),
	}
	for _, seq := range erase.GetSeqs() {
		entry.Hashes = append(entry.Hashes, prefix(hashes[seq]))
	}
	return entry
}

func prefix(hash []byte) string { return hex.EncodeToString(hash[:min(chain.PrefixSize, len(hash))]) }

// Ledger is the file. Entries of several calls at once are written one after the other. A nil Ledger records nothing.
type Ledger struct {
	path string

	mu   sync.Mutex
	file *os.File
}

// New makes a ledger in a file, which is made when there is something to write. It is nil for an empty path.
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
		// Opened anew the next time: what was written by half ends with its line.
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

// open opens the file for adding to it. After a line that was written by half it begins a new one.
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

// Read reads a ledger. damaged counts lines that are not entries: one that was written by half belongs to an erasure that was
// not committed, and is written again when the erasure is.
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
