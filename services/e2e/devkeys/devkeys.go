// Package devkeys makes all keys that the parts of an installation use to authenticate: certificates for each role, for
// the gateways' clients and for NATS, and the nkeys of NATS's users. It is for development and tests, like package devca.
//
//	DIR/gateway, delivery, history, admin, service   cert.pem key.pem ca.pem: --rpc.tls.…
//	DIR/gateway, delivery                            nkey.seed: --nats.nkey-seed-file
//	DIR/clients                                      cert.pem key.pem: --gateway.tls.…; clients trust ca.pem
//	DIR/nats                                         cert.pem key.pem ca.pem: TLS_CERT, TLS_KEY, TLS_CA of deploy/nats; the last is
//	                                                 also --nats.tls.ca-file
//	DIR/nats.env                                     GATEWAY_NKEY and DELIVERY_NKEY of deploy/nats
//
// There are three authorities, because a certificate of one authority must not give access to the others: a NATS server accepts
// another NATS server by its certificate alone, and a client of the gateways is not a service.
package devkeys

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/certs/devca"
	"github.com/runnelhq/runnel/pkg/rpc"
)

// Names of the directories that do not belong to a role.
const (
	Clients = "clients"
	NATS    = "nats"
)

// roles contains the role of each directory.
var roles = map[string]rpc.Role{
	"gateway": rpc.RoleGateway, "delivery": rpc.RoleDelivery, "history": rpc.RoleHistory, "admin": rpc.RoleAdmin, "service": rpc.RoleService,
}

// Ring contains the keys of one installation, and the authorities that can issue further certificates.
type Ring struct {
	dir      string
	hosts    []string
	lifetime time.Duration

	services, clients, nats *devca.CA
}

// Make writes all keys to dir. hosts are the names and addresses at which NATS and the gateways are reached.
func Make(dir string, hosts []string, lifetime time.Duration) (*Ring, error) {
	r := &Ring{dir: dir, hosts: hosts, lifetime: lifetime}
	if err := r.Replace(); err != nil {
		return nil, err
	}
	var environment strings.Builder
	for _, name := range []string{"gateway", "delivery"} {
		public, err := r.nkey(name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&environment, "%s_NKEY=%s\n", strings.ToUpper(name), public)
	}
	if err := os.WriteFile(filepath.Join(dir, "nats.env"), []byte(environment.String()), 0o600); err != nil {
		return nil, fmt.Errorf("write the names of NATS's users: %w", err)
	}
	return r, nil
}

// Replace makes new authorities, and new certificates signed by them. A part that reads the new files no longer trusts
// the old certificates.
func (r *Ring) Replace() error {
	for name, ca := range map[string]**devca.CA{"services": &r.services, "clients": &r.clients, "NATS": &r.nats} {
		var err error
		if *ca, err = devca.New("Runnel development: " + name); err != nil {
			return err
		}
	}
	for _, name := range append(slices.Collect(maps.Keys(roles)), Clients, NATS) {
		if err := r.Renew(name); err != nil {
			return err
		}
	}
	return nil
}

// Renew replaces the certificate in one directory.
func (r *Ring) Renew(name string) error {
	ca, names := r.services, []string{string(roles[name])}
	switch name {
	case Clients:
		ca, names = r.clients, r.hosts
	case NATS:
		ca, names = r.nats, r.hosts
	}
	_, err := ca.Issue(filepath.Join(r.dir, name), devca.Request{Names: names, Lifetime: r.lifetime})
	return err
}

// Files returns the certificate files of one directory.
func (r *Ring) Files(name string) certs.Config {
	at := func(file string) string { return filepath.Join(r.dir, name, file) }
	return certs.Config{CertFile: at("cert.pem"), KeyFile: at("key.pem"), CAFile: at("ca.pem")}
}

// Seed returns the path of the file with a service's nkey seed.
func (r *Ring) Seed(name string) string { return filepath.Join(r.dir, name, "nkey.seed") }

// nkey makes a NATS user and returns its public key.
func (r *Ring) nkey(name string) (public string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", fmt.Errorf("make the nkey of %s: %w", name, err)
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return "", fmt.Errorf("read the nkey of %s: %w", name, err)
	}
	if err := os.WriteFile(r.Seed(name), append(seed, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("write the nkey of %s: %w", name, err)
	}
	return pair.PublicKey()
}
