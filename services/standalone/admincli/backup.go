package admincli

import (
	"context"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

// maxMarks bounds the file of marks that is read.
const maxMarks = 1 << 20

type backup struct {
	Mark markBackup `cmd:"" help:"Record that a backup was made."`
}

type markBackup struct {
	Marks string `arg:"" optional:"" help:"What runnel-history backup begin printed when the backup was begun." placeholder:"FILE"`
	Now   bool   `help:"Instead of FILE: mark the present watermarks, for a backup that holds everything until now."`
}

func (*markBackup) Help() string {
	return `Streams keep the commands that a restored database would need: those that no marked backup holds, and always the newest 10000.
While no backup was ever marked they keep one hour. Mark a backup when it is complete, with the marks of when it was begun.

  runnel-history backup begin > marks.json && pg_dump ... && runnel admin backup mark marks.json
  runnel admin backup mark --now`
}

// Run marks a backup.
func (m *markBackup) Run(ctx context.Context, c *Command, console *Console) error {
	request := &adminv1.MarkBackupRequest{}
	switch {
	case (m.Marks == "") != m.Now:
		// A mark without a backup makes the streams forget what a restore would need.
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
	defer func() { _ = file.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(file, maxMarks))
	if err != nil {
		return failed("read the marks: %w", err)
	}
	if err := protojson.Unmarshal(text, request); err != nil {
		return usage("%s is not what runnel-history backup begin prints: %w", clean(path), err)
	}
	if len(request.GetMarks()) == 0 {
		return usage("%s holds no marks: nothing was committed when the backup was begun", clean(path))
	}
	return nil
}
