// Command probe sends a request to each address and exits with 0 if every address answers. An HTTP address must answer
// with status 200. A TCP address must accept the connection. The probe is the health check of images that contain no
// other client, and `helm test` runs it. It implements HTTP itself, because net/http is larger than the rest of the
// program.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// patience limits the time for one address.
const patience = 4 * time.Second

func main() {
	tokenFile := flag.String("token-file", "", "file with a bearer token for the HTTP addresses")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: probe [-token-file FILE] http://127.0.0.1:9090/readyz tcp://127.0.0.1:8080 …")
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*tokenFile, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// run probes all addresses and reports every address that does not answer.
func run(tokenFile string, addresses []string) error {
	token := ""
	if tokenFile != "" {
		text, err := os.ReadFile(tokenFile)
		if err != nil {
			return err
		}
		token = strings.TrimSpace(string(text))
	}
	var errs []error
	for _, address := range addresses {
		errs = append(errs, ask(address, token, patience))
	}
	return errors.Join(errs...)
}

// ask makes one request. It sends the bearer token unless the token is empty.
func ask(address, token string, patience time.Duration) error {
	target, err := url.Parse(address)
	if err != nil || target.Scheme != "http" && target.Scheme != "tcp" || target.Port() == "" {
		return fmt.Errorf("%q is not of the form http://HOST:PORT/PATH or tcp://HOST:PORT", address)
	}
	dialer := net.Dialer{Timeout: patience}
	connection, err := dialer.DialContext(context.Background(), "tcp", target.Host)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	if target.Scheme == "tcp" {
		return nil
	}
	header := ""
	if token != "" {
		header = "Authorization: Bearer " + token + "\r\n"
	}
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", target.RequestURI(), target.Host, header); err != nil {
		return err
	}
	status, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no answer from %s: %w", address, err)
	}
	if fields := strings.Fields(status); len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") || fields[1] != "200" {
		return fmt.Errorf("%s answers %q", address, strings.TrimSpace(status))
	}
	return nil
}
