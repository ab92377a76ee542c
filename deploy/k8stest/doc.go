// Package k8stest installs the Helm chart of deploy/helm/runnel into a real Kubernetes control plane and tests the
// properties that the chart promises. A strict API server accepts every object. Pods satisfy the restricted pod security
// standard and are spread over zones. Drains and rollouts never remove too many pods at once. The autoscaler reads the
// number of the gateways' connections. Uninstalling the chart removes every object.
//
// The API server, the controllers and the scheduler are the real programs. The nodes are simulated: kwok replaces every
// kubelet, so no container runs. This package therefore does not test images, the answers of probes, or the effect of
// network policies on packets. It is a separate module outside the workspace, because Kubernetes pins hundreds of
// modules.
//
// Run it with scripts/k8s.sh, which builds the programs that it starts.
package k8stest
