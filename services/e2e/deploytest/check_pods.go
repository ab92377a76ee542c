package deploytest

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// checkSecurity checks the requirements of the restricted pod security standard, and a read-only root file system.
func checkSecurity(in *inspection) {
	for _, account := range in.Accounts {
		if token := account.AutomountServiceAccountToken; token == nil || *token {
			in.failf("the ServiceAccount %s gives its pods a token", account.Name)
		}
	}
	for _, w := range slices.Concat(in.Workloads, in.Tests) {
		spec, container := w.Pod.Spec, w.Container()
		must := func(kept bool, rule string) {
			if !kept {
				in.failf("%s: %s", w.Name, rule)
			}
		}
		yes := func(value *bool) bool { return value != nil && *value }
		no := func(value *bool) bool { return value != nil && !*value }
		pod, own := spec.SecurityContext, container.SecurityContext
		if pod == nil || own == nil {
			in.failf("%s has no security context", w.Name)
			continue
		}
		must(no(spec.AutomountServiceAccountToken), "the pod gets a token of the Kubernetes API")
		must(yes(pod.RunAsNonRoot) && pod.RunAsUser != nil && *pod.RunAsUser != 0, "it may run as root")
		must(pod.RunAsUser == nil || pod.FSGroup != nil, "its user cannot read mounted Secrets")
		must(pod.SeccompProfile != nil && pod.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "seccomp is off")
		must(no(own.AllowPrivilegeEscalation) && own.Privileged == nil, "it may gain privileges")
		must(yes(own.ReadOnlyRootFilesystem), "its root file system can be written to")
		must(own.Capabilities != nil && slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) && len(own.Capabilities.Add) == 0, "it keeps capabilities")
		must(!spec.HostNetwork && !spec.HostPID && !spec.HostIPC, "it shares namespaces with the node")
		for _, volume := range spec.Volumes {
			must(volume.HostPath == nil, "it mounts the node's "+volume.Name)
		}
		for _, port := range container.Ports {
			must(port.HostPort == 0, "it takes a port of the node")
		}
	}
}

// checkMemory checks that there is a memory limit and a request, and that Go collects garbage before the kernel kills the
// process.
func checkMemory(in *inspection) {
	for _, w := range in.Workloads {
		resources := w.Container().Resources
		limit := resources.Limits.Memory().Value()
		if limit == 0 || resources.Requests.Memory().Value() == 0 || resources.Requests.Cpu().MilliValue() == 0 {
			in.failf("%s does not say what CPU and memory it needs, or has no limit of memory", w.Name)
			continue
		}
		if resources.Requests.Memory().Value() > limit {
			in.failf("%s requests more memory than its limit", w.Name)
		}
		environment, err := w.Environment(in.Scratch(), in.Secrets)
		if err != nil {
			in.failf("%s: %w", w.Name, err)
		}
		soft, err := strconv.ParseInt(environment["GOMEMLIMIT"], 10, 64)
		if share := float64(soft) / float64(limit); err != nil || share < 0.8 || share > 0.97 {
			in.failf("GOMEMLIMIT of %s is %q; 80 to 97 %% of the limit %d are wanted", w.Name, environment["GOMEMLIMIT"], limit)
		}
	}
}
