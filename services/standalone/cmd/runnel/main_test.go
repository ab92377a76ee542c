package main

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThePageLinkKeepsTheCodeInItsFragment(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080/#code=abc", "[::]:8080": "http://127.0.0.1:8080/#code=abc",
		"0.0.0.0:8080": "http://127.0.0.1:8080/#code=abc", "192.0.2.1:8080": "http://192.0.2.1:8080/#code=abc",
	} {
		link := pageLink(address, "abc")
		require.Equal(t, want, link)
		u, err := url.Parse(link)
		require.NoError(t, err)
		require.NotContains(t, u.RequestURI(), "abc", "what a browser sends, and servers log")
	}
	require.Equal(t, "http://127.0.0.1:8080/", pageLink("127.0.0.1:8080", ""), "with authentication there is no code")
}
