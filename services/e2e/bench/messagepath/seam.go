package messagepath

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// traffic is what crossed the process's borders.
type traffic struct {
	fromClients, toClients int64 // bytes of WebSocket frames
	filesWritten           int64 // bytes written to files: SQLite and JetStream
	filesRead              int64
	receipts               int64 // receipts that clients received
}

// minus returns the difference.
func (t traffic) minus(before traffic) traffic {
	return traffic{
		t.fromClients - before.fromClients, t.toClients - before.toClients, t.filesWritten - before.filesWritten,
		t.filesRead - before.filesRead, t.receipts - before.receipts,
	}
}

// trafficNow counts up to now. The operating system counts the sockets too, those of the clients included, which are in this process:
// both ends of every connection are left out.
func (s *server) trafficNow() (traffic, error) {
	t := traffic{toClients: int64(s.loop.Bytes()), receipts: s.receipts.Load()}
	for _, client := range s.clients {
		t.fromClients += int64(client.Written())
	}
	io, err := ownIO()
	if err != nil {
		return traffic{}, err
	}
	t.filesWritten = io["wchar"] - t.fromClients - t.toClients
	t.filesRead = io["rchar"] - t.fromClients - t.toClients
	return t, nil
}

// ownIO reads how many bytes this process has read and written.
func ownIO() (map[string]int64, error) {
	file, err := os.Open("/proc/self/io")
	if err != nil {
		return nil, fmt.Errorf("read the bytes of this process: %w", err)
	}
	defer file.Close()
	counts := map[string]int64{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ": "); found {
			if counts[name], err = strconv.ParseInt(value, 10, 64); err != nil {
				return nil, fmt.Errorf("read the bytes of this process: %w", err)
			}
		}
	}
	return counts, nil
}

var _ load.ReceiptHandler = (*server)(nil)
