// Package attack attacks a running Runnel in the ways that a stranger or a hostile user can. It checks that each attack
// costs no more than allowed, and that an honest client is served during and after it. README.md lists the attacks; it is
// generated from the tests.
package attack
