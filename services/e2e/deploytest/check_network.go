package deploytest

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// party is one end of a connection: a pod of the installation, a pod of another namespace, or an address outside of the
// cluster.
type party struct {
	workload  *Workload
	namespace string // namespace of a pod elsewhere; if it is empty and workload is nil, the party is outside of the cluster
}

// checkNetwork evaluates the network policies like the network itself, to find which connections they allow.
func checkNetwork(in *inspection) {
	if len(in.Policies) == 0 {
		return
	}
	inside := map[string]party{}
	for _, w := range in.Workloads {
		inside[w.Component()] = party{workload: w}
	}
	var (
		clients    = party{namespace: "ingress-nginx"}
		prometheus = party{namespace: "monitoring"}
		stranger   = party{namespace: "default"}
		internet   = party{}
	)
	in.expect(true, "clients reach the gateway", clients, inside[gateway], 8080)
	in.expect(true, "gateways read history", inside[gateway], inside[history], 9000)
	in.expect(true, "delivery appends to history", inside[delivery], inside[history], 9000)
	in.expect(true, "history reaches PostgreSQL", inside[history], internet, 5432)
	for _, component := range []string{gateway, delivery, history} {
		in.expect(true, "Prometheus scrapes "+component, prometheus, inside[component], 9090)
		in.expect(false, "strangers reach the admin port of "+component, stranger, inside[component], 9090)
		in.expect(false, "strangers call "+component, stranger, inside[component], 9000)
		in.expect(false, component+" reaches the internet", inside[component], internet, 443)
	}
	in.expect(false, "clients reach the admin port", clients, inside[gateway], 9090)
	in.expect(false, "strangers are clients without the Ingress", stranger, inside[gateway], 8080)
	in.expect(false, "gateways call delivery", inside[gateway], inside[delivery], 9000)
	in.expect(false, "history calls delivery", inside[history], inside[delivery], 9000)
	in.expect(false, "gateways reach the database", inside[gateway], internet, 5432)
	if nats, own := inside[natsName]; own {
		in.expect(true, "gateways reach NATS", inside[gateway], nats, 4222)
		in.expect(true, "delivery reaches NATS", inside[delivery], nats, 4222)
		in.expect(false, "history reaches NATS", inside[history], nats, 4222)
		in.expect(false, "strangers reach NATS", stranger, nats, 4222)
		in.expect(false, "gateways are NATS servers", inside[gateway], nats, 6222)
		in.expect(false, "NATS reaches history", nats, inside[history], 9000)
		in.expect(false, "NATS reaches the internet", nats, internet, 443)
		if w := nats.workload; w.Replicas != nil && *w.Replicas > 1 {
			in.expect(true, "NATS servers reach each other", nats, nats, 6222)
		}
	} else {
		in.expect(true, "gateways reach NATS", inside[gateway], internet, 4222)
		in.expect(true, "delivery reaches NATS", inside[delivery], internet, 4222)
	}
	for _, test := range in.Tests {
		for _, component := range []string{gateway, delivery, history} {
			in.expect(true, test.Name+" reaches the admin port of "+component, party{workload: test}, inside[component], 9090)
			in.expect(false, test.Name+" calls "+component, party{workload: test}, inside[component], 9000)
		}
		in.expect(true, test.Name+" reaches the gateway as a client", party{workload: test}, inside[gateway], 8080)
		in.expect(false, test.Name+" reaches the internet", party{workload: test}, internet, 443)
		inside[testComponent] = party{workload: test}
	}
	for component, who := range inside {
		in.expect(true, component+" asks for names", who, party{namespace: "kube-system"}, 53)
	}
}

func (in *inspection) expect(allowed bool, what string, from, to party, port int32) {
	if got := in.allowed(from, to, port); got != allowed {
		in.failf("%s: the policies say %t, and %t is right", what, got, allowed)
	}
}

// allowed implements the semantics of NetworkPolicy for TCP. Pods that no policy selects are open. Selected pods accept
// only connections that a policy allows. Both ends must allow a connection.
func (in *inspection) allowed(from, to party, port int32) bool {
	return in.direction(networkingv1.PolicyTypeEgress, from, to, to, port) && in.direction(networkingv1.PolicyTypeIngress, to, from, to, port)
}

// direction evaluates the policies that select own, for a connection with peer. The port belongs to target.
func (in *inspection) direction(kind networkingv1.PolicyType, own, peer, target party, port int32) bool {
	if own.workload == nil {
		return true // policies of other namespaces are not checked
	}
	open := true
	for _, policy := range in.Policies {
		applies := false
		for _, each := range policy.Spec.PolicyTypes {
			applies = applies || each == kind
		}
		if !applies || !matches(&policy.Spec.PodSelector, own.workload.Pod.Labels) {
			continue
		}
		open = false
		if kind == networkingv1.PolicyTypeEgress {
			for _, rule := range policy.Spec.Egress {
				if allows(rule.To, rule.Ports, peer, target, port) {
					return true
				}
			}
			continue
		}
		for _, rule := range policy.Spec.Ingress {
			if allows(rule.From, rule.Ports, peer, target, port) {
				return true
			}
		}
	}
	return open
}

func allows(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, peer, target party, port int32) bool {
	peerFits, portFits := len(peers) == 0, len(ports) == 0
	for _, each := range peers {
		switch {
		case each.IPBlock != nil:
			peerFits = peerFits || peer.workload == nil && peer.namespace == ""
		case each.NamespaceSelector != nil:
			peerFits = peerFits || peer.namespace != "" && matches(each.NamespaceSelector, labelSet{"kubernetes.io/metadata.name": peer.namespace})
		case each.PodSelector != nil:
			peerFits = peerFits || peer.workload != nil && matches(each.PodSelector, peer.workload.Pod.Labels)
		}
	}
	for _, each := range ports {
		switch {
		case each.Port == nil:
			portFits = true
		case each.Port.Type == intstr.Int:
			portFits = portFits || each.Port.IntVal == port
		case target.workload != nil: // a port name means the port with this name in the target's pod
			portFits = portFits || target.workload.port(*each.Port) == port
		}
	}
	return peerFits && portFits
}
