package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/runnelhq/runnel/pkg/certs/devca"
)

// Secrets returns the value of a key of a Secret.
type Secrets func(secret, key string) (string, error)

// NewVault makes each Secret that an operator would make when it is first requested. These are certificates of one
// authority for the keys of a TLS Secret, nkeys for NATS, the URL of a database, and a text of sufficient length for all
// others. dir must not be used otherwise.
func NewVault(dir string) (Secrets, error) {
	ca, err := devca.New("deploytest")
	if err != nil {
		return nil, err
	}
	v := &vault{dir: dir, ca: ca, users: map[string]nkeys.KeyPair{}}
	return v.content, nil
}

type vault struct {
	dir string
	ca  *devca.CA

	mu    sync.Mutex
	users map[string]nkeys.KeyPair // by name of the NATS user
}

// tlsKeys are the keys of a Secret with a certificate. Secrets of other types are mounted key by key.
var tlsKeys = []string{"tls.crt", "tls.key", "ca.crt"}

func (v *vault) content(secret, key string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	role := strings.TrimSuffix(secret, "-tls")
	if key == "url" || key == "uri" {
		return "postgres://runnel:" + strings.Repeat("x", 24) + "@db/runnel", nil // programs refuse a value that is not a database URL
	}
	switch user, seed := strings.CutPrefix(secret, "runnel-nats-"); {
	case slices.Contains(tlsKeys, key):
		return v.certificate(role, key)
	case seed && key == "seed":
		pair, err := v.user(user)
		if err != nil {
			return "", err
		}
		text, err := pair.Seed()
		return string(text), err
	case seed && user == "users":
		pair, err := v.user(key)
		if err != nil {
			return "", err
		}
		return pair.PublicKey()
	default:
		return strings.Repeat(secret+"/"+key+".", 1+64/(len(secret)+len(key))), nil
	}
}

func (v *vault) user(name string) (nkeys.KeyPair, error) {
	if v.users[name] == nil {
		pair, err := nkeys.CreateUser()
		if err != nil {
			return nil, fmt.Errorf("make an nkey: %w", err)
		}
		v.users[name] = pair
	}
	return v.users[name], nil
}

// certificate makes a certificate with the role's name, as in a cluster. The certificate of a server that is reached by
// address also contains 127.0.0.1.
func (v *vault) certificate(role, key string) (string, error) {
	path := filepath.Join(v.dir, role, map[string]string{"tls.crt": "cert.pem", "tls.key": "key.pem", "ca.crt": "ca.pem"}[key])
	if _, err := os.Stat(path); err != nil {
		names := []string{role}
		if !slices.Contains(roles, role) {
			names = append(names, "127.0.0.1")
		}
		if _, err := v.ca.Issue(filepath.Join(v.dir, role), devca.Request{Names: names, Lifetime: time.Hour}); err != nil {
			return "", err
		}
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// roles are the names by which services identify each other.
var roles = []string{"runnel-gateway", "runnel-delivery", "runnel-history", "runnel-admin"}
