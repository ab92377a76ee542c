package deploytest

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// checkPorts checks that containers declare the ports on which their programs listen, and that every reference to a port
// leads to an existing port.
func checkPorts(in *inspection) {
	for _, w := range in.services() {
		listening := map[string]bool{}
		for name, address := range in.settings(w) {
			if !strings.HasSuffix(name, ".listen") || address == "" {
				continue
			}
			host, port, _ := net.SplitHostPort(address)
			if host != "" {
				in.failf("%s listens on %s for %s, where no other pod can reach it", w.Name, address, name)
			}
			listening[port] = true
		}
		declared := map[string]bool{}
		for _, port := range w.Container().Ports {
			declared[strconv.Itoa(int(port.ContainerPort))] = true
		}
		if !maps.Equal(listening, declared) {
			in.failf("%s listens on the ports %v and declares %v", w.Name, slices.Sorted(maps.Keys(listening)), slices.Sorted(maps.Keys(declared)))
		}
	}
	for _, service := range in.Services {
		for _, port := range service.Spec.Ports {
			if _, _, err := in.dial(fmt.Sprintf("%s:%d", service.Name, port.Port)); err != nil {
				in.failf("the Service %s: %w", service.Name, err)
			}
		}
	}
	for _, ingress := range in.Ingresses {
		for _, rule := range ingress.Spec.Rules {
			for _, route := range rule.HTTP.Paths {
				in.checkBackend(ingress.Name, route.Backend.Service.Name, route.Backend.Service.Port.Name)
			}
		}
	}
	for _, w := range in.services() {
		in.checkAddress(w, "history-address", history, "rpc")
		in.checkAddress(w, "nats.url", natsName, "client")
	}
}

// checkAddress checks that the addresses in a setting lead to a port of a component. Addresses of services outside of the
// installation are not checked.
func (in *inspection) checkAddress(w *Workload, setting, component, port string) {
	addresses := in.settings(w)[setting]
	if addresses == "" || in.workload(component) == nil {
		return
	}
	for address := range strings.SplitSeq(addresses, ",") {
		_, address, _ = strings.Cut(address, "://")
		address = strings.TrimPrefix(address, "/")
		target, number, err := in.dial(address)
		switch {
		case err != nil:
			in.failf("%s of %s is %s: %w", setting, w.Name, address, err)
		case target.Component() != component || portName(target, number) != port:
			in.failf("%s of %s leads to %s on port %d", setting, w.Name, target.Name, number)
		}
	}
}

func (in *inspection) checkBackend(ingress, name, port string) {
	service := in.service(name)
	if service == nil {
		in.failf("the Ingress %s leads to the Service %s, which is not there", ingress, name)
		return
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == port })
	if i < 0 {
		in.failf("the Ingress %s leads to port %q of the Service %s, which has no such port", ingress, port, name)
		return
	}
	target, number, err := in.dial(fmt.Sprintf("%s:%d", name, service.Spec.Ports[i].Port))
	if err == nil && (target.Component() != gateway || portName(target, number) != "clients") {
		in.failf("the Ingress %s leads to %s on port %d, not to the clients' port of the gateway", ingress, target.Name, number)
	}
}

func portName(w *Workload, number int32) string {
	for _, port := range w.Container().Ports {
		if port.ContainerPort == number {
			return port.Name
		}
	}
	return ""
}

// checkProbes checks that each probe uses a port of the container and a path that answers without a token. It also checks
// that a pod is not restarted while it only waits for other pods.
func checkProbes(in *inspection) {
	for _, w := range in.Workloads {
		container := w.Container()
		for name, probe := range map[string]*corev1.Probe{
			"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe,
		} {
			if probe == nil || probe.HTTPGet == nil {
				in.failf("%s has no %s probe over HTTP", w.Name, name)
				continue
			}
			port := portName(w, w.port(probe.HTTPGet.Port))
			if want := map[bool]string{true: "monitor", false: "admin"}[w.Component() == natsName]; port != want {
				in.failf("the %s probe of %s asks the port %s, not %s", name, w.Name, probe.HTTPGet.Port.String(), want)
			}
			if got := in.Answers(w.Component(), probe.HTTPGet.Path); got != 200 {
				in.failf("the %s probe of %s asks for %s, which answers %d", name, w.Name, probe.HTTPGet.Path, got)
			}
		}
		if live, ready := container.LivenessProbe, container.ReadinessProbe; live != nil && ready != nil &&
			live.HTTPGet != nil && ready.HTTPGet != nil && live.HTTPGet.Path == ready.HTTPGet.Path {
			in.failf("%s is restarted when it is not ready: both probes ask for %s", w.Name, live.HTTPGet.Path)
		}
	}
}
