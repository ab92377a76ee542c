package standalone

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsReady is the time limit for the embedded server to recover its streams.
const natsReady = 30 * time.Second

// startNATS starts a NATS server in this process. The server opens no port: clients connect in memory.
func startNATS(cfg Config, log *slog.Logger) (*server.Server, error) {
	ns, err := server.NewServer(&server.Options{
		ServerName:   "runnel",
		DontListen:   true,
		JetStream:    true,
		StoreDir:     filepath.Join(cfg.DataDir, "nats"),
		NoSigs:       true,
		SyncInterval: cfg.SyncInterval,
		MaxPayload:   1 << 20,
		// The default limit is three quarters of the free disk space. On a small machine, the streams may reserve more.
		JetStreamMaxStore: max(cfg.NATS.MaxBytes*int64(cfg.NATS.Partitions)*5/4, 1<<30),
	})
	if err != nil {
		return nil, fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	ns.SetLoggerV2(natsLog{log.With("part", "nats")}, false, false, false)
	ns.Start()
	if !ns.ReadyForConnections(natsReady) {
		ns.Shutdown()
		return nil, errors.New("the embedded NATS server did not become ready; see the log for its reason")
	}
	return ns, nil
}
