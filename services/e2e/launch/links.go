package launch

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/runnelhq/runnel/services/e2e/proxy"
)

// Clients is the name of a link's end for all clients.
const Clients = "clients"

// Link is the network path for connections from the part From to the part To.
type Link struct {
	*proxy.Proxy
	From, To string
}

// Between returns the links between two parts, in both directions. A name without a number, such as "nats", means all
// parts of that kind.
func (s *Suite) Between(a, b string) []*Link {
	return slices.DeleteFunc(slices.Clone(s.Links), func(l *Link) bool {
		return (!named(l.From, a) || !named(l.To, b)) && (!named(l.From, b) || !named(l.To, a))
	})
}

// named reports whether meant is the name of the part, or the name of its kind.
func named(part, meant string) bool {
	kind, _, _ := strings.Cut(part, "-")
	return part == meant || kind == meant
}

func (s *Suite) closeLinks() {
	for _, l := range s.Links {
		l.Close()
	}
}

// link returns the address at which the part from reaches the part to, which listens at address, or will.
func (b *builder) link(from, to, address string) (string, error) {
	if !b.Proxied {
		return address, nil
	}
	p, err := proxy.Listen(address)
	if err != nil {
		return "", err
	}
	b.suite.Links = append(b.suite.Links, &Link{Proxy: p, From: from, To: to})
	return p.Addr(), nil
}

// database returns the database location for a history service.
func (b *builder) database(name string) (string, error) {
	if b.Store == SQLite {
		return b.suite.Database, nil
	}
	location, err := url.Parse(b.suite.Database)
	if err != nil {
		return "", fmt.Errorf("read the URL of PostgreSQL: %w", err)
	}
	location.Host, err = b.link(name, b.suite.Postgres.Name(), location.Host)
	return location.String(), err
}

// behind returns the addresses that the i-th gateway or worker uses: the NATS servers, and its history service.
func (b *builder) behind(name string, i int) (servers, history string, err error) {
	var list []string
	for n, server := range b.suite.natsURL {
		address, err := b.link(name, b.suite.NATS[n].Name(), strings.TrimPrefix(server, natsScheme))
		if err != nil {
			return "", "", err
		}
		list = append(list, natsScheme+address)
	}
	at := i % b.Histories
	history, err = b.link(name, b.suite.Histories[at].Name(), b.histories[at])
	return strings.Join(list, ","), history, err
}
