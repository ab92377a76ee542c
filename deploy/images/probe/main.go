// Command probe asks an address over HTTP and ends with 0 if the answer is 200: a health check for images in which there is no other
// program to make one with. It speaks HTTP itself, because the whole of net/http is larger than all the rest of it.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: probe http://127.0.0.1:9090/readyz")
		os.Exit(2)
	}
	if err := ask(os.Args[1], 4*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// ask makes one request.
func ask(address string, patience time.Duration) error {
	target, err := url.Parse(address)
	if err != nil || target.Scheme != "http" || target.Port() == "" {
		return fmt.Errorf("%q is not of the form http://HOST:PORT/PATH", address)
	}
	dialer := net.Dialer{Timeout: patience}
	connection, err := dialer.DialContext(context.Background(), "tcp", target.Host)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target.RequestURI(), target.Host); err != nil {
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
