package deploytest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type labelSet = labels.Set

// Objects contains the objects of an installation.
type Objects struct {
	Namespaces      []*corev1.Namespace
	Accounts        []*corev1.ServiceAccount
	ConfigMaps      []*corev1.ConfigMap
	Services        []*corev1.Service
	Workloads       []*Workload
	Ingresses       []*networkingv1.Ingress
	Policies        []*networkingv1.NetworkPolicy
	Autoscalers     []*autoscalingv2.HorizontalPodAutoscaler
	Budgets         []*policyv1.PodDisruptionBudget
	ServiceMonitors []*ServiceMonitor
	Rules           []*PrometheusRule
	Certificates    []*Certificate
	Tests           []*Workload // the pods of helm test

	names []Object
}

// Workload is a Deployment or a StatefulSet.
type Workload struct {
	Kind, Name  string
	Replicas    *int32
	Selector    *metav1.LabelSelector
	Pod         *corev1.PodTemplateSpec
	Rollout     *appsv1.RollingUpdateDeployment // only for a Deployment
	ServiceName string                          // only for a StatefulSet
	Claims      []corev1.PersistentVolumeClaim  // only for a StatefulSet
}

// The components of an installation.
const (
	gateway  = "gateway"
	delivery = "delivery"
	history  = "history"
	natsName = "nats"
)

const componentLabel = "app.kubernetes.io/component"

// Component returns gateway, delivery, history or nats.
func (w *Workload) Component() string { return w.Pod.Labels[componentLabel] }

// Program returns the name of the binary that the workload runs: the last part of the image's name.
func (w *Workload) Program() string {
	name := path.Base(w.Container().Image)
	if i := strings.IndexAny(name, ":@"); i >= 0 {
		name = name[:i]
	}
	return name
}

// Container returns the workload's main container. Containers that an operator adds come after it.
func (w *Workload) Container() *corev1.Container {
	if len(w.Pod.Spec.Containers) == 0 {
		return &corev1.Container{}
	}
	return &w.Pod.Spec.Containers[0]
}

// port returns the number of a port of the container, given by number or name; 0 if there is none.
func (w *Workload) port(want intstr.IntOrString) int32 {
	for _, port := range w.Container().Ports {
		if port.Name == want.StrVal && want.Type == intstr.String || port.ContainerPort == want.IntVal && want.Type == intstr.Int {
			return port.ContainerPort
		}
	}
	return 0
}

// workload returns the workload of a component; nil if there is none.
func (o *Objects) workload(component string) *Workload {
	for _, w := range o.Workloads {
		if w.Component() == component {
			return w
		}
	}
	return nil
}

// selected returns the workloads whose pods a selector selects.
func (o *Objects) selected(selector *metav1.LabelSelector) []*Workload {
	var found []*Workload
	for _, w := range o.Workloads {
		if matches(selector, w.Pod.Labels) {
			found = append(found, w)
		}
	}
	return found
}

// only returns the workload that a selector selects. It returns an error unless the selector selects exactly one.
func (o *Objects) only(selector *metav1.LabelSelector) (*Workload, error) {
	found := o.selected(selector)
	if len(found) == 1 {
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, w := range found {
		names[i] = w.Name
	}
	return nil, fmt.Errorf("selects the pods of %d workloads, not of one: %v", len(found), names)
}

// service returns the Service with a name.
func (o *Objects) service(name string) *corev1.Service {
	for _, service := range o.Services {
		if service.Name == name {
			return service
		}
	}
	return nil
}

// dial resolves an address, in the form that pods of the namespace use, to a workload and a port. Examples are
// runnel-history:9000 and runnel-nats-0.runnel-nats:4222.
func (o *Objects) dial(address string) (*Workload, int32, error) {
	host, port, found := strings.Cut(address, ":")
	number, err := strconv.ParseInt(port, 10, 32)
	if !found || err != nil {
		return nil, 0, errors.New("has no port")
	}
	pod, name, ofPod := strings.Cut(host, ".")
	if !ofPod {
		name = host
	}
	service := o.service(name)
	if service == nil {
		return nil, 0, fmt.Errorf("there is no Service %q", name)
	}
	w, err := o.only(&metav1.LabelSelector{MatchLabels: service.Spec.Selector})
	if err != nil {
		return nil, 0, fmt.Errorf("the Service %s %w", name, err)
	}
	if ofPod {
		ordinal, numbered := strings.CutPrefix(pod, w.Name+"-")
		index, err := strconv.Atoi(ordinal)
		if !numbered || err != nil || w.ServiceName != name || w.Replicas == nil || index < 0 || index >= int(*w.Replicas) {
			return nil, 0, fmt.Errorf("%s has no pod %s", w.Name, pod)
		}
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == int32(number) })
	if i < 0 {
		return nil, 0, fmt.Errorf("the Service %s has no port %d", name, number)
	}
	target := w.port(service.Spec.Ports[i].TargetPort)
	if target == 0 {
		return nil, 0, fmt.Errorf("the Service %s leads to port %s, which %s does not have", name, service.Spec.Ports[i].TargetPort.String(), w.Name)
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone && target != int32(number) {
		return nil, 0, fmt.Errorf("the headless Service %s cannot lead from port %d to %d", name, number, target)
	}
	return w, target, nil
}
