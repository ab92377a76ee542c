package standalone

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed web
var web embed.FS

// pages serves the small chat page, and the development sign-in that it uses. signIn is nil if the development sign-in is
// off.
func pages(signIn *signIn) (http.Handler, error) {
	files, err := fs.Sub(web, "web")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", secured(http.FileServerFS(files)))
	mux.Handle("POST /dev/token", signIn)
	return mux, nil
}

func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}
