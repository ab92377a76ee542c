package admin

import (
	"context"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// MarkBackup records which commands a backup contains, so that the streams may purge them.
func (s *Server) MarkBackup(ctx context.Context, request *adminv1.MarkBackupRequest) (*adminv1.MarkBackupResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	marked, err := s.History.MarkBackup(ctx, &historyv1.MarkBackupRequest{Marks: request.GetMarks()})
	if err != nil {
		return nil, err
	}
	s.acted(ctx, "mark a backup", "partitions", len(marked.GetMarks()))
	return &adminv1.MarkBackupResponse{Marks: marked.GetMarks()}, nil
}
