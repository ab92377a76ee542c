// Package k8stest installs the Helm chart of deploy/helm/runnel into a real Kubernetes control plane and tries to break what
// the chart promises: that a strict API server takes every object, that pods obey the restricted pod security standard and
// are spread over zones, that drains and rollouts never take too much at once, that the autoscaler reads the gateways'
// connections, and that nothing is left when it is uninstalled.
//
// The API server, the controllers and the scheduler are the real ones; the nodes are not. kwok stands in for every kubelet,
// so no container runs here: an image, a probe's answer or a network policy's effect on packets is never tested by this
// package. It has a module of its own, outside the workspace, because Kubernetes pins hundreds of modules.
//
// Run it with scripts/k8s.sh, which builds the programs it starts.
package k8stest
