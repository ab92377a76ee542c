package deploytest

import (
	"net/url"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const testComponent = "test" // component label of the objects that exist only while helm test runs

const hookAnnotation = "helm.sh/hook"

// checkTest checks the pod of helm test. It must run the probe of one of our images against every service, with the token
// of the services. Every address that it probes must lead to a port that answers.
func checkTest(in *inspection) {
	for _, test := range in.Tests {
		if test.Pod.Annotations[hookAnnotation] != "test" {
			in.failf("the Pod %s is not run by helm test alone", test.Name)
		}
		if in.Programs[test.Program()] == nil {
			in.failf("%s runs %q, an image without the probe", test.Name, test.Container().Image)
		}
		addresses := in.probed(test)
		ready := map[string]bool{}
		for _, address := range addresses {
			target, err := url.Parse(address)
			if err != nil {
				in.failf("%s asks %q: %w", test.Name, address, err)
				continue
			}
			w, port, err := in.dial(target.Host)
			if err != nil {
				in.failf("%s asks %s, which %w", test.Name, address, err)
				continue
			}
			switch name := portName(w, port); {
			case target.Scheme == "tcp" && name == "clients":
				ready["clients"] = true
			case target.Scheme == "http" && name == "admin" && target.Path == "/readyz":
				ready[w.Component()] = true
			case target.Scheme == "http" && name == "admin" && in.Answers(w.Component(), target.Path) == 401:
				ready[w.Component()+" with the token"] = true
			default:
				in.failf("%s asks %s, which proves nothing", test.Name, address)
			}
		}
		for _, what := range []string{gateway, delivery, history, gateway + " with the token", "clients"} {
			if !ready[what] {
				in.failf("%s does not ask for %s", test.Name, what)
			}
		}
	}
}

// probed returns the addresses that a test probes. It also checks that the test uses the token of the services.
func (in *inspection) probed(test *Workload) []string {
	command := test.Container().Command
	if len(command) < 4 || command[0] != "/usr/bin/probe" || command[1] != "-token-file" {
		in.failf("%s runs %v, not the probe with a token", test.Name, command)
		return nil
	}
	files, err := test.files(in.Secrets)
	if err != nil {
		in.failf("%s: %w", test.Name, err)
	}
	if _, mounted := files[command[2]]; !mounted {
		in.failf("%s reads %s, and mounts no such file", test.Name, command[2])
	}
	for _, volume := range test.Pod.Spec.Volumes {
		if volume.Secret != nil && (len(volume.Secret.Items) != 1 || !in.mounts(volume.Secret.SecretName, volume.Secret.Items[0].Key)) {
			in.failf("%s shows a token that is not the one the services ask for", test.Name)
		}
	}
	return command[3:]
}

// checkTestPolicy checks that a network policy for the test is in force only while the test runs, and is removed
// afterwards.
func (in *inspection) checkTestPolicy(policy *networkingv1.NetworkPolicy) {
	policies := strings.Split(policy.Annotations["helm.sh/hook-delete-policy"], ",")
	if policy.Annotations[hookAnnotation] != "test" || !slices.Contains(policies, "hook-succeeded") || !slices.Contains(policies, "hook-failed") {
		in.failf("the NetworkPolicy %s stays when the test is over", policy.Name)
	}
	selector := metav1.LabelSelector{MatchLabels: policy.Spec.PodSelector.MatchLabels}
	if !slices.ContainsFunc(slices.Concat(in.Workloads, in.Tests), func(w *Workload) bool { return matches(&selector, w.Pod.Labels) }) {
		in.failf("the NetworkPolicy %s selects nothing", policy.Name)
	}
}
