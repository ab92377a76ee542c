// Package deploytest checks what operators deploy, without a cluster: the manifests that the Helm chart renders and the
// compose file.
//
//	decode.go     documents → Kubernetes API types, strictly: an unknown or repeated field is an error
//	crd.go        the few custom resources, as far as they are used here
//	objects.go    Objects: an installation, and what selects what
//	program.go    Program: one of our binaries, asked for its settings
//	check.go      Checks: the list; each compares an installation with itself or with what the binaries really have
//	check_*.go    selectors, ports, environment, pods, rollouts, monitoring, the network, NATS
//	vault.go      the Secrets that an operator would make
//	run.go        Run: an installation as processes of this machine, each with the environment its manifest gives it
//	listeners.go  what a process listens on
//	compose.go    the same checks for the compose file
//
// Every check has a mutation that it must find (mutations_test.go). What only a control plane can tell, such as whether
// objects are admitted and pods scheduled, is tested in deploy/k8stest.
package deploytest
