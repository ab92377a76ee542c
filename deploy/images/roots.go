package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// roots returns the certificates of Mozilla's authorities in PEM. They come from a Go module pinned in go.sum, not from
// the build machine. They are therefore equal in every build. Authorities with trust constraints are left out, because a
// PEM bundle cannot express constraints.
func roots() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // writing to a buffer never fails
		}
	}
	return text.Bytes()
}
