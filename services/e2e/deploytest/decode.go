package deploytest

import (
	"bytes"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

// Decode reads documents separated by ---. Every kind must be known, and every field must be known and occur once. All
// errors are reported at once.
func Decode(text []byte) (*Objects, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("know the Kubernetes API types: %w", err)
		}
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	objects, errs := &Objects{}, []error(nil)
	for document := range bytes.SplitSeq(append([]byte("\n"), text...), []byte("\n---\n")) {
		var header Object
		if err := yaml.Unmarshal(document, &header); err != nil {
			errs = append(errs, fmt.Errorf("a document that is no object: %w:\n%s", err, document))
			continue
		}
		if header.Kind == "" {
			continue // comments only
		}
		if err := objects.add(strict, header, document); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", header.Kind, header.Metadata.Name, err))
		}
	}
	return objects, errors.Join(errs...)
}

// add decodes one document.
func (o *Objects) add(strict runtime.Decoder, header Object, document []byte) error {
	o.names = append(o.names, header)
	switch header.APIVersion + " " + header.Kind {
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return addCustom(&o.ServiceMonitors, document)
	case "monitoring.coreos.com/v1 PrometheusRule":
		return addCustom(&o.Rules, document)
	case "cert-manager.io/v1 Certificate":
		return addCustom(&o.Certificates, document)
	}
	decoded, _, err := strict.Decode(document, nil, nil)
	if err != nil {
		return err
	}
	switch object := decoded.(type) {
	case *corev1.Namespace:
		o.Namespaces = append(o.Namespaces, object)
	case *corev1.ServiceAccount:
		o.Accounts = append(o.Accounts, object)
	case *corev1.ConfigMap:
		o.ConfigMaps = append(o.ConfigMaps, object)
	case *corev1.Service:
		o.Services = append(o.Services, object)
	case *appsv1.Deployment:
		o.Workloads = append(o.Workloads, &Workload{
			Kind: object.Kind, Name: object.Name, Replicas: object.Spec.Replicas, Selector: object.Spec.Selector,
			Pod: &object.Spec.Template, Rollout: object.Spec.Strategy.RollingUpdate,
		})
	case *appsv1.StatefulSet:
		o.Workloads = append(o.Workloads, &Workload{
			Kind: object.Kind, Name: object.Name, Replicas: object.Spec.Replicas, Selector: object.Spec.Selector,
			Pod: &object.Spec.Template, ServiceName: object.Spec.ServiceName, Claims: object.Spec.VolumeClaimTemplates,
		})
	case *corev1.Pod:
		o.Tests = append(o.Tests, &Workload{
			Kind: header.Kind, Name: object.Name, Pod: &corev1.PodTemplateSpec{ObjectMeta: object.ObjectMeta, Spec: object.Spec},
		})
	case *networkingv1.Ingress:
		o.Ingresses = append(o.Ingresses, object)
	case *networkingv1.NetworkPolicy:
		o.Policies = append(o.Policies, object)
	case *autoscalingv2.HorizontalPodAutoscaler:
		o.Autoscalers = append(o.Autoscalers, object)
	case *policyv1.PodDisruptionBudget:
		o.Budgets = append(o.Budgets, object)
	default:
		return errors.New("no check here knows this kind; a Secret, above all, does not belong among manifests")
	}
	return nil
}

func addCustom[T any](list *[]*T, document []byte) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return err
	}
	*list = append(*list, object)
	return nil
}

// matches reports whether a selector selects labels; nil selects nothing, an empty one everything.
func matches(selector *metav1.LabelSelector, labels map[string]string) bool {
	if selector == nil {
		return false
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labelSet(labels))
}
