package deploytest

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkMonitoring checks that every service is scraped exactly once, with the token, and that alerts are complete.
func checkMonitoring(in *inspection) {
	for _, monitor := range in.ServiceMonitors {
		scraped := in.scraped(monitor)
		for _, component := range []string{gateway, delivery, history} {
			if scraped[component] != 1 {
				in.failf("%s is scraped %d times", component, scraped[component])
			}
		}
		for _, endpoint := range monitor.Spec.Endpoints {
			if status := in.Answers(gateway, endpoint.Path); status != 401 {
				in.failf("%s answers %d to somebody without a token", endpoint.Path, status)
			}
			in.checkScrapeToken(monitor.Metadata.Name, endpoint.Authorization != nil,
				endpoint.Authorization != nil && in.mounts(endpoint.Authorization.Credentials.Name, endpoint.Authorization.Credentials.Key))
		}
	}
	in.checkRules()
}

// checkRules checks that every rule is complete, and that no two alerts have the same name.
func (in *inspection) checkRules() {
	for _, rule := range in.Rules {
		groups, alerts := map[string]bool{}, map[string]bool{}
		for _, group := range rule.Spec.Groups {
			if groups[group.Name] {
				in.failf("the group %s is there twice", group.Name)
			}
			groups[group.Name] = true
			for _, r := range group.Rules {
				if strings.TrimSpace(r.Expr) == "" || (r.Alert == "") == (r.Record == "") {
					in.failf("a rule of %s is not whole: %+v", group.Name, r)
				}
				if r.Alert != "" && alerts[r.Alert] {
					in.failf("the alert %s is there twice", r.Alert)
				}
				alerts[r.Alert] = true
			}
		}
	}
}

// scraped counts how often a monitor selects each component.
func (in *inspection) scraped(monitor *ServiceMonitor) map[string]int {
	times := map[string]int{}
	for _, service := range in.Services {
		if !matches(&monitor.Spec.Selector, service.Labels) {
			continue
		}
		w, err := in.only(&metav1.LabelSelector{MatchLabels: service.Spec.Selector})
		for _, endpoint := range monitor.Spec.Endpoints {
			for _, port := range service.Spec.Ports {
				if err == nil && port.Name == endpoint.Port {
					times[w.Component()]++
				}
			}
		}
	}
	return times
}

func (in *inspection) checkScrapeToken(monitor string, given, theirs bool) {
	if !given {
		in.failf("%s shows no token, and gets nothing", monitor)
	} else if !theirs {
		in.failf("%s shows a token that is not the one the services ask for", monitor)
	}
}

// mounts reports whether the services' admin token comes from this key of this Secret.
func (in *inspection) mounts(secret, key string) bool {
	return !slices.ContainsFunc(in.services(), func(w *Workload) bool {
		return !slices.ContainsFunc(w.Pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Secret != nil && v.Secret.SecretName == secret && slices.Equal(keys(v), []string{key})
		})
	})
}
