package admincli

import (
	"context"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

// maxMarks limits the size of the file with the marks.
const maxMarks = 1 << 20

type backup struct {
	Mark markBackup `cmd:"" help:"Record that a backup was made."`
}

type markBackup struct {
	Marks string `arg:"" optional:"" help:"Output of runnel-history backup begin from the start of the backup." placeholder:"FILE"`
	Now   bool   `help:"Use the current watermarks as marks instead of reading FILE, for a backup that contains everything up to now."`
}

func (*markBackup) Help() string {
	return `Streams keep the commands that a restored database would need: those not in a marked backup, and always the newest 10000.
Before the first backup is marked they keep one hour. Mark a backup when it is complete, with the marks from its start.

  runnel-history backup begin > marks.json && pg_dump ... && runnel admin backup mark marks.json
  runnel admin backup mark --now`
}

// Run marks a backup.
func (m *markBackup) Run(ctx context.Context, c *Command, console *Console) error {
	request := &adminv1.MarkBackupRequest{}
	switch {
	case (m.Marks == "") != m.Now:
		// Without a backup, a mark would let the streams purge commands that a restore needs.
		return usage("name the FILE of marks from when the backup was begun, or say --now if the backup holds everything until now")
	case m.Marks != "":
		if err := readMarks(m.Marks, request); err != nil {
			return err
		}
	}
	return c.run(console, func(s *session) error {
		answer, err := s.admin.MarkBackup(ctx, request)
		if err != nil {
			return err
		}
		return s.print(answer, func(p *page) {
			if len(answer.GetMarks()) == 0 {
				p.linef("nothing was committed yet, so there is nothing to mark")
				return
			}
			p.row("PARTITION", "STREAM", "EPOCH", "SEQUENCE", "TIME")
			for _, mark := range answer.GetMarks() {
				at := mark.GetWatermark()
				p.row(number(mark.GetPartition()), at.GetStream(), number(at.GetEpoch()), number(at.GetSequence()), p.moment(at.GetTimeNs()/1e6))
			}
		})
	})
}

func readMarks(path string, request *adminv1.MarkBackupRequest) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return usage("read the marks: %w", err)
	}
	defer func() { _ = file.Close() }() // the file was only read, so an error of closing it is harmless
	text, err := io.ReadAll(io.LimitReader(file, maxMarks))
	if err != nil {
		return failed("read the marks: %w", err)
	}
	if err := protojson.Unmarshal(text, request); err != nil {
		return usage("%s is not output of runnel-history backup begin: %w", clean(path), err)
	}
	if len(request.GetMarks()) == 0 {
		return usage("%s holds no marks: nothing was committed when the backup was begun", clean(path))
	}
	return nil
}
