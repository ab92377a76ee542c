package k8stest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// loosened are the ways of a pod to get around the restricted standard.
var loosened = map[string]func(*core.PodSpec){
	"may run as root":        func(p *core.PodSpec) { p.SecurityContext.RunAsNonRoot = nil },
	"runs as root":           func(p *core.PodSpec) { p.SecurityContext.RunAsUser = new(int64(0)) },
	"has no seccomp profile": func(p *core.PodSpec) { p.SecurityContext.SeccompProfile = nil },
	"keeps capabilities":     func(p *core.PodSpec) { p.Containers[0].SecurityContext.Capabilities = nil },
	"adds a capability": func(p *core.PodSpec) {
		p.Containers[0].SecurityContext.Capabilities.Add = []core.Capability{"NET_ADMIN"}
	},
	"may gain privileges":     func(p *core.PodSpec) { p.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil },
	"uses the node's network": func(p *core.PodSpec) { p.HostNetwork = true },
	"mounts the node's files": func(p *core.PodSpec) {
		p.Volumes = append(p.Volumes, core.Volume{Name: "node", VolumeSource: core.VolumeSource{HostPath: &core.HostPathVolumeSource{Path: "/"}}})
	},
	"brings a loose container": func(p *core.PodSpec) {
		p.Containers = append(p.Containers, core.Container{Name: "debug", Image: "busybox"})
	},
}

func TestPodsObeyTheRestrictedStandard(t *testing.T) {
	ctx := deadline(t)
	r := install(ctx, t)
	for component := range components {
		// That the pods are there shows that nothing refused them; what is offered below differs by one line from them.
		pod := r.pods(ctx, t, component)[0]
		t.Run(component, func(t *testing.T) {
			require.NoError(t, offerPod(ctx, r.namespace, &pod, func(*core.PodSpec) {}))
			for way, loosen := range loosened {
				err := offerPod(ctx, r.namespace, &pod, loosen)
				require.True(t, errors.IsForbidden(err), "a pod that %s: %v", way, err)
				require.ErrorContains(t, err, `violates PodSecurity "restricted`, "a pod that %s", way)
			}
		})
		t.Run(component+" has no token and cannot write its image", func(t *testing.T) {
			require.NotEqual(t, "default", pod.Spec.ServiceAccountName)
			for _, volume := range pod.Spec.Volumes {
				// Where the API server's own admission would have put the token of the service account.
				require.Nil(t, volume.Projected, volume.Name)
			}
			for _, container := range pod.Spec.Containers {
				require.True(t, *container.SecurityContext.ReadOnlyRootFilesystem, container.Name)
			}
		})
	}
}

// offerPod asks whether a pod like another, but changed, would be let in.
func offerPod(ctx context.Context, namespace string, like *core.Pod, change func(*core.PodSpec)) error {
	pod := &core.Pod{ObjectMeta: meta.ObjectMeta{GenerateName: "offered-"}, Spec: *like.Spec.DeepCopy()}
	pod.Spec.NodeName = ""
	change(&pod.Spec)
	_, err := cluster.Client.CoreV1().Pods(namespace).Create(ctx, pod, meta.CreateOptions{DryRun: []string{meta.DryRunAll}})
	return err
}
