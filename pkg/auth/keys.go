package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/runnelhq/runnel/pkg/watched"
)

const (
	minRSABits, maxRSABits = 2048, 8192
	// maxKeys limits the keys that are tried for a token without a key id.
	maxKeys = 32
)

// algorithms are all algorithms with which a token may be signed; each key has one of them.
var algorithms = []jose.SignatureAlgorithm{jose.HS256, jose.RS256, jose.ES256, jose.EdDSA}

// key is a key and its algorithm.
type key struct {
	id        string // if empty, the key is tried for tokens with any key id
	algorithm jose.SignatureAlgorithm
	material  any // the form in which go-jose verifies
}

// takes reports whether the key may have signed a token with this header. A token without a key id may have been signed
// by any key.
func (k key) takes(header jose.Header) bool {
	return string(k.algorithm) == header.Algorithm && (k.id == "" || header.KeyID == "" || k.id == header.KeyID)
}

// verifyWith returns the signed payload, or nil if none of the keys signed it.
func verifyWith(keys []key, signed *jose.JSONWebSignature) []byte {
	header := signed.Signatures[0].Protected
	for _, k := range keys {
		if !k.takes(header) {
			continue
		}
		if payload, err := signed.Verify(k.material); err == nil && payload != nil {
			return payload
		}
	}
	return nil
}

// staticKeys reads the keys in the settings and in files. Files are read again when they change.
func staticKeys(cfg Config, log *slog.Logger) (*watched.Files[[]key], error) {
	var paths []string
	for _, path := range append([]string{cfg.HMACSecretFile, cfg.HMACSecretPreviousFile, cfg.JWKSFile}, cfg.PublicKeyFiles...) {
		if path != "" {
			paths = append(paths, path)
		}
	}
	files, err := watched.Load(watched.Config[[]key]{
		Paths:    paths,
		Read:     func() ([]key, error) { return readKeys(cfg, log) },
		Replaced: func(keys []key) { log.Info("the key files were read again", "keys", len(keys)) },
		Refused: func(err error) {
			log.Error("new key files cannot be used; the previous keys stay in force", "error", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	return files, nil
}

func readKeys(cfg Config, log *slog.Logger) ([]key, error) {
	keys, err := readSecrets(cfg)
	if err != nil {
		return nil, err
	}
	for _, path := range cfg.PublicKeyFiles {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading a public key: %w", err)
		}
		fromFile, err := parsePEM(data)
		if err != nil {
			return nil, fmt.Errorf("public key file %s: %w", path, err)
		}
		keys = append(keys, fromFile...)
	}
	if cfg.JWKSFile != "" {
		data, err := os.ReadFile(cfg.JWKSFile)
		if err != nil {
			return nil, fmt.Errorf("reading the JWKS file: %w", err)
		}
		fromFile, err := parseJWKS(data, log)
		if err != nil {
			return nil, fmt.Errorf("JWKS file %s: %w", cfg.JWKSFile, err)
		}
		keys = append(keys, fromFile...)
	}
	return keys, nil
}

// readSecrets reads the HMAC secrets. The file of the previous secret may be empty, so that a rotation can end without a
// change of settings.
func readSecrets(cfg Config) (keys []key, err error) {
	current, err := cfg.Secret()
	if err != nil {
		return nil, err
	}
	previous, err := secretOf(cfg.HMACSecretPrevious, cfg.HMACSecretPreviousFile)
	if err != nil {
		return nil, err
	}
	if cfg.HasSecret() && len(current) < MinSecretBytes {
		return nil, fmt.Errorf("the HMAC secret (RUNNEL_AUTH_HMAC_SECRET) is shorter than %d bytes", MinSecretBytes)
	}
	if previous != "" && len(previous) < MinSecretBytes {
		return nil, fmt.Errorf("the previous HMAC secret (RUNNEL_AUTH_HMAC_SECRET_PREVIOUS) is shorter than %d bytes", MinSecretBytes)
	}
	for _, secret := range []string{current, previous} {
		if secret != "" {
			keys = append(keys, key{algorithm: jose.HS256, material: []byte(secret)})
		}
	}
	return keys, nil
}

// parsePEM reads every public key in a PEM file.
func parsePEM(data []byte) ([]key, error) {
	var keys []key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("contains a private key; only the issuer should have it")
		}
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("holds %q, not a PUBLIC KEY", block.Type)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		k, err := newKey("", public)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no PEM block")
	}
	return keys, nil
}

// newKey makes a key from a public key, with the algorithm of its type.
func newKey(id string, public any) (key, error) {
	k := key{id: id, material: public}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return key{}, fmt.Errorf("an RSA key of %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
		}
		k.algorithm = jose.RS256
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return key{}, fmt.Errorf("an EC key on %s; only P-256 is accepted", public.Curve.Params().Name)
		}
		k.algorithm = jose.ES256
	case ed25519.PublicKey:
		k.algorithm = jose.EdDSA
	default:
		return key{}, fmt.Errorf("a %T, which is not a public key of RSA, EC or Ed25519", public)
	}
	return k, nil
}

// parseJWKS reads the usable keys of a JSON Web Key Set. A set may contain keys for other purposes, so a key that cannot
// be used is skipped, with a debug line in the log. It is an error if no key can be used.
func parseJWKS(data []byte, log *slog.Logger) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("holds %d keys; at most %d are accepted", len(set.Keys), maxKeys)
	}
	var keys []key
	for i, raw := range set.Keys {
		k, err := parseJWK(raw)
		if err != nil {
			log.Debug("a key of the JWKS is skipped", "index", i, "kid", k.id, "reason", err)
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key that can be used")
	}
	return keys, nil
}

func parseJWK(raw []byte) (key, error) {
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return key{}, err
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return key{id: jwk.KeyID}, errors.New("it is not for signatures")
	}
	k, err := newKey(jwk.KeyID, jwk.Key) // refuses private keys and secrets: once published, they are compromised
	if err != nil {
		return key{id: jwk.KeyID}, err
	}
	// RFC 9864 defines a separate name for EdDSA with Ed25519.
	if alg := jwk.Algorithm; alg != "" && alg != string(k.algorithm) && (alg != "Ed25519" || k.algorithm != jose.EdDSA) {
		return k, errors.New("its algorithm is not accepted for keys of its type")
	}
	return k, nil
}
