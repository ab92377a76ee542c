package auth_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnelhq/runnel/pkg/auth"
)

func Example() {
	secret := "0123456789abcdef0123456789abcdef" // from the configuration; never in the source
	verifier, err := auth.New(auth.Config{HMACSecret: secret, Audience: "runnel"}, auth.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer verifier.Close()

	token, err := auth.Mint([]byte(secret), "ann", time.Hour, time.Now(), "runnel", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := verifier.Verify(context.Background(), token)
	fmt.Println(claims.User, err)

	_, err = verifier.Verify(context.Background(), token+"x")
	fmt.Println(errors.Is(err, auth.ErrSignature), err)
	// Output:
	// ann <nil>
	// true the token is not signed by a known key
}
