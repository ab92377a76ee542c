package deploytest

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkNames checks that no name is used twice, that all objects are in one namespace, and that no component is missing.
func checkNames(in *inspection) {
	seen := map[string]bool{}
	namespaces := map[string]bool{}
	for _, object := range in.names {
		id := object.Kind + "/" + object.Metadata.Name
		if seen[id] {
			in.failf("%s is there twice", id)
		}
		seen[id] = true
		if object.Kind != "Namespace" {
			namespaces[object.Metadata.Namespace] = true
		}
	}
	if len(namespaces) != 1 || namespaces[""] {
		in.failf("the objects must say one namespace; they say %v", namespaces)
	}
	for _, namespace := range in.Namespaces {
		if !namespaces[namespace.Name] {
			in.failf("the Namespace %s is not that of the objects", namespace.Name)
		}
	}
	for _, component := range []string{gateway, delivery, history} {
		if w := in.workload(component); w == nil {
			in.failf("nothing runs %s", component)
		} else if w.Program() != "runnel-"+component {
			in.failf("%s runs the program %s", component, w.Program())
		}
	}
	for _, w := range in.Workloads {
		if !seen["ServiceAccount/"+w.Pod.Spec.ServiceAccountName] {
			in.failf("%s runs as the ServiceAccount %q, which is not there", w.Name, w.Pod.Spec.ServiceAccountName)
		}
		if w.Container().Name != w.Component() {
			in.failf("the first container of %s is %q, not %q", w.Name, w.Container().Name, w.Component())
		}
	}
}

// checkSelectors checks that each selector selects exactly the intended pods.
func checkSelectors(in *inspection) {
	expect := func(what string, selector *metav1.LabelSelector, component string) {
		w, err := in.only(selector)
		switch {
		case err != nil:
			in.failf("%s %w", what, err)
		case component != w.Component():
			in.failf("%s selects the pods of %s, not of %q", what, w.Component(), component)
		}
	}
	for _, w := range in.Workloads {
		expect(w.Kind+" "+w.Name, w.Selector, w.Component())
		if w.Kind == "StatefulSet" && in.service(w.ServiceName) == nil {
			in.failf("the StatefulSet %s names the Service %q, which is not there", w.Name, w.ServiceName)
		}
	}
	for _, service := range in.Services {
		expect("the Service "+service.Name, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, service.Labels[componentLabel])
	}
	protected := map[string]int{}
	for _, budget := range in.Budgets {
		expect("the PodDisruptionBudget "+budget.Name, budget.Spec.Selector, budget.Labels[componentLabel])
		protected[budget.Labels[componentLabel]]++
	}
	for _, w := range in.Workloads {
		if len(in.Budgets) > 0 && protected[w.Component()] != 1 {
			in.failf("%s has %d disruption budgets; an eviction wants exactly one", w.Name, protected[w.Component()])
		}
	}
	for _, policy := range in.Policies {
		if component := policy.Labels[componentLabel]; component == testComponent {
			in.checkTestPolicy(policy)
		} else if component != "network" {
			expect("the NetworkPolicy "+policy.Name, &policy.Spec.PodSelector, component)
		} else if got := len(in.selected(&policy.Spec.PodSelector)); got != len(in.Workloads) {
			in.failf("the NetworkPolicy %s is for all pods and selects those of %d of %d workloads", policy.Name, got, len(in.Workloads))
		}
	}
}

// checkSpread checks that topology spread constraints count the pods of the same workload.
func checkSpread(in *inspection) {
	for _, w := range in.Workloads {
		topologies := map[string]bool{}
		for _, constraint := range w.Pod.Spec.TopologySpreadConstraints {
			topologies[constraint.TopologyKey] = true
			if other, err := in.only(constraint.LabelSelector); err != nil || other != w {
				in.failf("%s spreads over %s by a selector of other pods", w.Name, constraint.TopologyKey)
			}
		}
		for _, key := range []string{"topology.kubernetes.io/zone", "kubernetes.io/hostname"} {
			if !topologies[key] {
				in.failf("%s is not spread over %s", w.Name, key)
			}
		}
		if affinity := w.Pod.Spec.Affinity; affinity != nil && affinity.PodAntiAffinity != nil {
			for _, term := range affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
				if other, err := in.only(term.LabelSelector); err != nil || other != w {
					in.failf("%s keeps away from pods that are not its own", w.Name)
				}
			}
		}
	}
}
