package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/runnelhq/runnel/pkg/watched"
)

// nkeyUser is the user of an nkey seed file. The file is read again when it changes, so that a service uses the new user
// with its next connection. nkeyUser is a dialer, because only there the client library can be given a new public key: it
// holds the connection's lock while it dials and before it authenticates.
type nkeyUser struct {
	file *watched.Files[nkey]
	conn atomic.Pointer[nats.Conn] // nil until the first connection exists
}

// nkey is the key pair of one user.
type nkey struct {
	public string
	seed   []byte
}

func newNkeyUser(path string, log *slog.Logger) (*nkeyUser, error) {
	file, err := watched.Load(watched.Config[nkey]{
		Paths: []string{path},
		Read:  func() (nkey, error) { return readNkey(path) },
		Replaced: func(k nkey) {
			log.Info("the nkey seed was read again; it takes effect with the next connection to NATS", "user", k.public)
		},
		Refused: func(err error) {
			log.Error("the new nkey seed cannot be used; the previous one stays in force", "error", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("read the nkey seed %s: %w", path, err)
	}
	return &nkeyUser{file: file}, nil
}

func readNkey(path string) (nkey, error) {
	contents, err := os.ReadFile(path)
	if err != nil {
		return nkey{}, err
	}
	pair, err := nkeys.ParseDecoratedNKey(contents)
	if err != nil {
		return nkey{}, fmt.Errorf("the file holds no nkey seed: %w", err)
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return nkey{}, err
	}
	if !nkeys.IsValidPublicUserKey(public) {
		return nkey{}, errors.New("the nkey seed is not that of a user")
	}
	seed, err := pair.Seed()
	if err != nil {
		return nkey{}, err
	}
	return nkey{public: public, seed: append([]byte(nil), seed...)}, nil // Wipe clears the pair's own copy
}

// options returns the connection options for the user.
func (u *nkeyUser) options() []nats.Option {
	return []nats.Option{nats.Nkey(u.file.Current().public, u.sign), nats.SetCustomDialer(u)}
}

func (u *nkeyUser) sign(nonce []byte) ([]byte, error) {
	pair, err := nkeys.FromSeed(u.file.Current().seed)
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// Dial implements nats.CustomDialer.
func (u *nkeyUser) Dial(network, address string) (net.Conn, error) {
	if nc := u.conn.Load(); nc != nil {
		nc.Opts.Nkey = u.file.Current().public
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(context.Background(), network, address)
}

// dialTimeout is the time limit of one attempt to connect.
const dialTimeout = 2 * time.Second
