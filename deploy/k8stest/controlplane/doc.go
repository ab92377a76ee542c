// Package controlplane runs a Kubernetes control plane on 127.0.0.1 for a test: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler and kwok. kwok replaces the kubelets of simulated nodes.
//
// The control plane never runs a container, listens only on the loopback interface, and keeps no data: etcd does not even
// sync its files.
package controlplane
