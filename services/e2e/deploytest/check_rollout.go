package deploytest

import (
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
)

// checkRollout checks that new pods start before old pods end, and that pods are evicted one by one.
func checkRollout(in *inspection) {
	for _, w := range in.services() {
		if w.Rollout == nil || w.Rollout.MaxUnavailable == nil || w.Rollout.MaxUnavailable.String() != "0" ||
			w.Rollout.MaxSurge == nil || w.Rollout.MaxSurge.String() == "0" {
			in.failf("a rollout of %s takes pods away before others are there", w.Name)
		}
	}
	for _, budget := range in.Budgets {
		if budget.Spec.MaxUnavailable == nil || budget.Spec.MaxUnavailable.String() != "1" || budget.Spec.MinAvailable != nil {
			in.failf("the PodDisruptionBudget %s must let one pod go, and no more", budget.Name)
		}
		if policy := budget.Spec.UnhealthyPodEvictionPolicy; policy == nil || *policy != policyv1.AlwaysAllow {
			in.failf("the PodDisruptionBudget %s holds back a node for pods that are broken anyway", budget.Name)
		}
	}
}

// checkGrace checks that the kubelet waits until a pod has completed its shutdown.
func checkGrace(in *inspection) {
	for _, w := range in.Workloads {
		var grace time.Duration
		if w.Pod.Spec.TerminationGracePeriodSeconds != nil {
			grace = time.Duration(*w.Pod.Spec.TerminationGracePeriodSeconds) * time.Second
		}
		hook := w.Container().Lifecycle
		if hook == nil || hook.PreStop == nil {
			in.failf("%s has no preStop hook", w.Name)
			continue
		}
		if w.Component() == natsName {
			in.checkLameDuck(w, hook.PreStop.Exec, grace)
			continue
		}
		if hook.PreStop.Sleep == nil || hook.PreStop.Sleep.Seconds < 5 {
			in.failf("%s goes before the nodes know that it does", w.Name)
			continue
		}
		stop := time.Duration(0)
		settings := in.settings(w)
		for _, name := range []string{"gateway.drain", "rpc.stop-timeout", "delivery.stop-timeout"} {
			if took, err := time.ParseDuration(settings[name]); err == nil {
				stop = max(stop, took)
			}
		}
		// The additional time is for exporting traces, and for the goroutines of the slowest connections to end.
		const margin = 10 * time.Second
		if pause := time.Duration(hook.PreStop.Sleep.Seconds) * time.Second; grace < pause+stop+margin {
			in.failf("%s is killed after %v, and needs %v + %v + %v", w.Name, grace, pause, stop, margin)
		}
	}
}

func (in *inspection) checkLameDuck(w *Workload, hook *corev1.ExecAction, grace time.Duration) {
	options, err := in.natsOptions(w)
	if err != nil {
		return // checkNATS checks this
	}
	if want := []string{"nats-server", "--signal", "ldm=" + options.PidFile}; hook == nil || !slices.Equal(hook.Command, want) {
		in.failf("the preStop hook of %s must be %v", w.Name, want)
	}
	const margin = 15 * time.Second
	if grace < options.LameDuckDuration+margin {
		in.failf("%s is killed after %v; it is a lame duck for %v", w.Name, grace, options.LameDuckDuration)
	}
}

// checkAutoscaling checks that the target of an autoscaler exists and sets no number of replicas itself, that the metrics
// exist, and that scaling down is slow.
func checkAutoscaling(in *inspection) {
	for _, scaler := range in.Autoscalers {
		target := scaler.Spec.ScaleTargetRef
		i := slices.IndexFunc(in.Workloads, func(w *Workload) bool { return w.Name == target.Name && w.Kind == target.Kind })
		if i < 0 {
			in.failf("%s scales the %s %s, which is not there", scaler.Name, target.Kind, target.Name)
			continue
		}
		w := in.Workloads[i]
		if w.Replicas != nil {
			in.failf("%s has a number of replicas, which every upgrade would go back to", w.Name)
		}
		if scaler.Spec.MinReplicas == nil || *scaler.Spec.MinReplicas < 2 || scaler.Spec.MaxReplicas < *scaler.Spec.MinReplicas {
			in.failf("%s must keep two pods at least", scaler.Name)
		}
		if len(scaler.Spec.Metrics) == 0 {
			in.failf("%s does not say by what it scales", scaler.Name)
		}
		for _, metric := range scaler.Spec.Metrics {
			if metric.Type != autoscalingv2.PodsMetricSourceType {
				continue
			}
			if name := metric.Pods.Metric.Name; !in.Metrics(w.Component())[name] {
				in.failf("%s scales by %s, which %s does not export", scaler.Name, name, w.Name)
			}
			if limit := in.settings(w)["gateway.max-connections"]; !metric.Pods.Target.AverageValue.IsZero() && limit != "" && limit != "0" {
				if most := quantity(limit); metric.Pods.Target.AverageValue.Value()*3/2 > most {
					in.failf("%s aims at %s connections of %d that a gateway takes: too few are left for those of a neighbour that dies",
						scaler.Name, metric.Pods.Target.AverageValue, most)
				}
			}
		}
		behaviour := scaler.Spec.Behavior
		if behaviour == nil || behaviour.ScaleDown == nil || behaviour.ScaleDown.StabilizationWindowSeconds == nil ||
			*behaviour.ScaleDown.StabilizationWindowSeconds < 600 || len(behaviour.ScaleDown.Policies) == 0 {
			in.failf("%s shrinks at once", scaler.Name)
		}
	}
	for _, w := range in.services() {
		scaled := slices.ContainsFunc(in.Autoscalers, func(s *autoscalingv2.HorizontalPodAutoscaler) bool { return s.Spec.ScaleTargetRef.Name == w.Name })
		if w.Replicas == nil && !scaled {
			in.failf("nothing says how many pods %s has", w.Name)
		}
	}
}
