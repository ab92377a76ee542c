// Package controlplane runs a Kubernetes control plane on 127.0.0.1 for a test: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, and kwok in the place of the kubelets of nodes that do not exist.
//
// It never runs a container, never listens on anything but the loopback interface, and keeps nothing: etcd does not even
// sync its files.
package controlplane
