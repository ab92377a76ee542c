package deploytest

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listeners returns the TCP addresses on which a process listens, as reported by the Linux kernel.
func listeners(pid int) ([]string, error) {
	sockets, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(sockets) == 0 {
		return nil, fmt.Errorf("read the files of process %d: %w", pid, os.ErrNotExist)
	}
	own := map[string]bool{} // the process's own sockets, by inode
	for _, path := range sockets {
		if target, err := os.Readlink(path); err == nil {
			own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	var addresses []string
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // the kernel has no IPv6
		}
		for line := range strings.Lines(string(text)) {
			const listening = "0A"
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != listening || !own[fields[9]] {
				continue
			}
			address, err := parseAddress(fields[1])
			if err != nil {
				return nil, err
			}
			addresses = append(addresses, address)
		}
	}
	return addresses, nil
}

// parseAddress parses an address like 0100007F:1F90, in which each group of 32 bits is byte-swapped.
func parseAddress(text string) (string, error) {
	host, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return "", err
	}
	ip, err := hex.DecodeString(host)
	if err != nil {
		return "", err
	}
	for i := 0; i+3 < len(ip); i += 4 {
		ip[i], ip[i+1], ip[i+2], ip[i+3] = ip[i+3], ip[i+2], ip[i+1], ip[i]
	}
	return net.JoinHostPort(net.IP(ip).String(), strconv.FormatUint(number, 10)), nil
}
