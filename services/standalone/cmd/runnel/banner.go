package main

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/runnelhq/runnel/services/standalone/admincli"
)

const (
	// defaultDataDir and defaultClients are the defaults of the commands for terminals.
	defaultDataDir = "./runnel-data"
	defaultClients = "127.0.0.1:8080"
)

// banner is the text that the program prints when it is ready. Every address in it can be opened and every command copied
// unchanged.
type banner struct {
	program, version string
	took             time.Duration
	dataDir          string
	// tls is true if clients need TLS. mutual is true if services and operators need certificates. adminToken is true if
	// the status page requires a token.
	tls, mutual, adminToken bool
	// address, admin and rpc are the addresses on which the server listens; admin may be empty.
	address, admin, rpc string
	// development is true if authentication is not configured; code is then the code of the sign-in.
	development bool
	code        string
}

// String returns the whole text.
func (b banner) String() string {
	var text strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&text, "  %-19s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&text, "Runnel %s is ready after %s. All data is in %s\n\n", b.version, b.took.Round(time.Millisecond), b.dataDir)
	line("Open in a browser", "%s", b.pageLink())
	if b.development {
		at, where := b.clientsAt(), b.dataAt()
		line("Chat in terminals", "%s chat alice --with bob%s%s", b.program, at, where)
		line("", "%s chat bob --with alice%s%s", b.program, at, where)
		line("A token", "%s token alice%s", b.program, where)
	} else {
		line("Clients connect to", "%s, with tokens of the configured issuer", b.clientURL())
	}
	if b.admin != "" {
		token := ""
		if b.adminToken {
			token = "; the password is the admin token"
		}
		line("Status page", "http://%s/ (also /metrics and /readyz%s)", openable(b.admin), token)
	}
	line("Administration", "%s admin %sstatus    (%s admin --help lists all commands)", b.program, b.operatorsAt(), b.program)
	text.WriteString("\nCtrl-C stops it.\n")
	if b.development {
		text.WriteString("No authentication is configured: whoever has the code in the link, or can read the data directory, may sign in as any user.\n" +
			"The code is new with each start. See the auth settings in --help.\n")
	}
	return text.String()
}

// pageLink returns the address of the chat page. The code is in the fragment, which browsers never send.
func (b banner) pageLink() string {
	link := url.URL{Scheme: "http", Host: openable(b.address), Path: "/"}
	if b.tls {
		link.Scheme = "https"
	}
	if b.code != "" {
		link.Fragment = "code=" + b.code
	}
	return link.String()
}

func (b banner) clientURL() string {
	link := url.URL{Scheme: "ws", Host: openable(b.address), Path: "/v1/ws"}
	if b.tls {
		link.Scheme = "wss"
	}
	return link.String()
}

// clientsAt returns the flag that tells chat the server's address; empty for the default.
func (b banner) clientsAt() string {
	if !b.tls && openable(b.address) == defaultClients {
		return ""
	}
	return " --url " + b.clientURL()
}

// dataAt returns the flag that tells chat and token where the development secret is; empty for the default.
func (b banner) dataAt() string {
	if standard, err := filepath.Abs(defaultDataDir); err == nil && (b.dataDir == standard || b.dataDir == defaultDataDir) {
		return ""
	}
	return " --data-dir " + quoted(b.dataDir)
}

// operatorsAt returns the flags of runnel admin, ending with a space; empty for the defaults.
func (b banner) operatorsAt() string {
	flags := ""
	if at := openable(b.rpc); at != admincli.DefaultStandalone {
		flags += "--address " + at + " "
	}
	if b.mutual {
		flags += "--tls.cert-file CERT --tls.key-file KEY --tls.ca-file CA "
	}
	return flags
}

// openable returns an address of this machine for an address on which the server listens, which may be a wildcard
// address.
func openable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !net.ParseIP(host).IsUnspecified() {
		return address
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// quoted returns a text so that a shell reads it as one word.
func quoted(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@%", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}
