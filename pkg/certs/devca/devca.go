// Package devca is a certificate authority for development and tests: it makes a root certificate and issues certificates signed by it.
//
// It is not for production: the root's key is not protected, certificates are never revoked, and identities are not
// checked. In production, use the authority of your platform.
package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/runnelhq/runnel/pkg/certs"
)

// CA is a root certificate with its key.
type CA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// rootLifetime is longer than the lifetime of the certificates that the root signs.
const rootLifetime = 10 * 365 * 24 * time.Hour

// New makes an authority with a new root certificate.
func New(name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of %q: %w", name, err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(rootLifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the root %q: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the root %q: %w", name, err)
	}
	return &CA{certificate: certificate, key: key}, nil
}

// Request describes a certificate. The certificate can be used by servers and by clients.
type Request struct {
	// Names are the names in the certificate: DNS names, IP addresses, and URIs, which are recognised by ://. The first
	// name is also the common name.
	Names []string
	// Lifetime is the time until the certificate expires. Its validity begins an hour before now, because clocks differ.
	// A negative lifetime makes an expired certificate.
	Lifetime time.Duration
}

// Issue makes a certificate and writes cert.pem, key.pem and ca.pem to dir. It creates dir if needed. It replaces
// existing files atomically, the certificate last.
func (ca *CA) Issue(dir string, request Request) (certs.Config, error) {
	cfg := certs.Config{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: filepath.Join(dir, "ca.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cfg, fmt.Errorf("make a key for %q: %w", request.Names, err)
	}
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(request.Lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for i, name := range request.Names {
		if i == 0 {
			template.Subject.CommonName = name
		}
		switch ip := net.ParseIP(name); {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case strings.Contains(name, "://"):
			uri, err := url.Parse(name)
			if err != nil {
				return cfg, fmt.Errorf("issue a certificate: %w", err)
			}
			template.URIs = append(template.URIs, uri)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := sign(template, ca.certificate, &key.PublicKey, ca.key)
	if err != nil {
		return cfg, fmt.Errorf("issue a certificate for %q: %w", request.Names, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return cfg, fmt.Errorf("encode the key for %q: %w", request.Names, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return cfg, fmt.Errorf("make the directory of a certificate: %w", err)
	}
	for _, file := range []struct {
		path, kind string
		der        []byte
	}{{cfg.CAFile, "CERTIFICATE", ca.certificate.Raw}, {cfg.KeyFile, "PRIVATE KEY", secret}, {cfg.CertFile, "CERTIFICATE", der}} {
		if err := replace(file.path, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der})); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// replace creates or replaces a file atomically: a concurrent reader gets either the old or the new content.
func replace(path string, data []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("write a certificate file: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replace a certificate file: %w", err)
	}
	return nil
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}
