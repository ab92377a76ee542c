// Package attack attacks a running Runnel as a stranger or a hostile user can, and checks what the attack may cost and that an
// honest client is served meanwhile and afterwards. README.md lists the attacks; it is generated from the tests.
package attack
