// Package deploytest checks the files that operators deploy, without a cluster: the manifests that the Helm chart renders and the
// compose file.
//
//	decode.go     documents → Kubernetes API types, strictly: an unknown or repeated field is an error
//	crd.go        the custom resources, with the fields that the checks use
//	objects.go    Objects: an installation, and the selectors between its objects
//	program.go    Program: one of our binaries and its settings
//	check.go      Checks: the list of checks; each compares parts of an installation with each other or with the binaries
//	check_*.go    selectors, ports, environment, pods, rollouts, monitoring, the network, NATS
//	vault.go      the Secrets that an operator would make
//	run.go        Run: an installation as processes on this machine, each with the environment in its manifest
//	listeners.go  the addresses on which a process listens
//	compose.go    the same checks for the compose file
//
// Every check has a mutation that it must find (mutations_test.go). Questions that need a control plane, such as whether
// objects are admitted and pods scheduled, are tested in deploy/k8stest.
package deploytest
