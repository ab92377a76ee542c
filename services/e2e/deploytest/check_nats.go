package deploytest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/runnelhq/runnel/pkg/broker"
)

func quantity(text string) int64 {
	parsed, err := resource.ParseQuantity(text)
	if err != nil {
		return 0
	}
	return parsed.Value()
}

// natsOptions makes the real NATS server parse the configuration of the first pod, with the files in a separate
// directory.
func (in *inspection) natsOptions(w *Workload) (*server.Options, error) {
	root := in.Scratch()
	file, err := in.writeNATS(w, root, in.Secrets)
	if err != nil {
		return nil, err
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		return nil, err
	}
	for _, path := range []*string{&options.PidFile, &options.StoreDir} {
		*path = strings.TrimPrefix(*path, root)
	}
	return options, nil
}

// writeNATS writes the configuration files of the NATS pods below root, with environment variables filled in, and all
// files to which they refer.
func (in *inspection) writeNATS(w *Workload, root string, secrets Secrets) (file string, err error) {
	environment, err := w.Environment(root, secrets)
	if err != nil {
		return "", err
	}
	fill := make([]string, 0, 2*len(environment))
	for name, value := range environment {
		fill = append(fill, "$"+name, strconv.Quote(value))
	}
	// Replace paths of the container by paths below root.
	for _, mount := range w.Container().VolumeMounts {
		fill = append(fill, " "+mount.MountPath, " "+filepath.Join(root, mount.MountPath))
	}
	for _, mount := range w.Container().VolumeMounts {
		if err := os.MkdirAll(filepath.Join(root, mount.MountPath), 0o755); err != nil {
			return "", err
		}
		i := slices.IndexFunc(w.Pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name && v.ConfigMap != nil })
		if i < 0 {
			continue
		}
		config := slices.IndexFunc(in.ConfigMaps, func(c *corev1.ConfigMap) bool { return c.Name == w.Pod.Spec.Volumes[i].ConfigMap.Name })
		if config < 0 {
			return "", fmt.Errorf("there is no ConfigMap %s", w.Pod.Spec.Volumes[i].ConfigMap.Name)
		}
		for name, text := range in.ConfigMaps[config].Data {
			if err := os.WriteFile(filepath.Join(root, mount.MountPath, name), []byte(strings.NewReplacer(fill...).Replace(text)), 0o600); err != nil {
				return "", err
			}
		}
	}
	command := w.Container().Command
	if len(command) != 3 || command[0] != "nats-server" || command[1] != "--config" {
		return "", fmt.Errorf("it runs %v", command)
	}
	return filepath.Join(root, command[2]), nil
}

// checkNATS checks that the real server accepts the configuration, and that it contains the settings that keep messages
// safe.
func checkNATS(in *inspection) {
	w := in.workload(natsName)
	if w == nil {
		return
	}
	options, err := in.natsOptions(w)
	if err != nil {
		in.failf("nats-server refuses the configuration: %w", err)
		return
	}
	must := func(kept bool, format string, args ...any) {
		if !kept {
			in.failf(format, args...)
		}
	}
	replicas := int(*w.Replicas)
	must(options.ServerName == w.Name+"-0", "the server is called %q, not after its pod", options.ServerName)
	must(options.SyncAlways, "a power failure loses what was accepted: sync_interval is not always")
	must(!options.NoJetStreamStrict, "JetStream is not strict")
	must(options.JetStreamLimits.MaxHAAssets == 2000, "max_ha_assets is %d", options.JetStreamLimits.MaxHAAssets)
	must(int(options.MaxPayload) == 256<<10 && options.MaxPayload > broker.MaxCommandBytes, "max_payload is %d", options.MaxPayload)
	must(options.MaxConn == 4096, "max_connections is %d", options.MaxConn)
	for name, port := range map[string]int{"client": options.Port, "monitor": options.HTTPPort, "cluster": options.Cluster.Port} {
		i := slices.IndexFunc(w.Container().Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
		declared := i >= 0
		must(declared == (port != 0) && (!declared || int(w.Container().Ports[i].ContainerPort) == port), "the server's %s port is %d, not the container's", name, port)
	}
	if replicas > 1 {
		must(len(options.Routes) == replicas, "%d servers have %d routes", replicas, len(options.Routes))
		for _, route := range options.Routes {
			target, port, err := in.dial(route.Host)
			must(err == nil && target == w && int(port) == options.Cluster.Port, "the route %s leads nowhere: %v", route.Host, err)
		}
		must(options.Cluster.NoAdvertise, "clients would be sent to addresses that no certificate names")
		must((options.Cluster.TLSConfig != nil) == (options.TLSConfig != nil), "TLS for clients and for servers go together")
		must(options.Cluster.TLSConfig == nil || options.Cluster.TLSConfig.ClientAuth == tls.RequireAndVerifyClientCert, "anybody with a route is a NATS server")
		must(w.Pod.Spec.Affinity != nil && w.Pod.Spec.Affinity.PodAntiAffinity != nil, "two servers may share a node")
	}
	for _, service := range in.services() {
		settings := in.settings(service)
		if address := settings["nats.url"]; address != "" {
			must(strings.Contains(address, "tls://") == (options.TLSConfig != nil), "%s speaks to NATS at %s, the server otherwise", service.Name, address)
			must((settings["nats.nkey-seed-file"] != "") == (len(options.Nkeys) > 0), "%s and the NATS server do not agree on nkeys", service.Name)
		}
	}
	in.checkStorage(w, options)
}

// checkStorage checks that all streams fit into max_file_store, and that max_file_store fits into the volume: a full disk
// is the only condition from which NATS does not recover by itself.
func (in *inspection) checkStorage(w *Workload, options *server.Options) {
	owner := in.settings(in.workload(delivery))
	copies := strconv.Itoa(int(*w.Replicas))
	if owner["nats.replicas"] != copies {
		in.failf("delivery makes streams with %s copies on %s servers", owner["nats.replicas"], copies)
	}
	streams := quantity(owner["nats.partitions"]) * quantity(owner["nats.max-bytes"])
	if streams == 0 || streams > options.JetStreamMaxStore {
		in.failf("streams may take %d bytes, and the server has %d for them", streams, options.JetStreamMaxStore)
	}
	for _, claim := range w.Claims {
		mounted := slices.ContainsFunc(w.Container().VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == claim.Name && m.MountPath == options.StoreDir })
		size := claim.Spec.Resources.Requests.Storage().Value()
		if !mounted || size*85/100 < options.JetStreamMaxStore {
			in.failf("the volume %s with %d bytes is not where the server keeps %d bytes, or is too small", claim.Name, size, options.JetStreamMaxStore)
		}
	}
	if len(w.Claims) == 0 {
		in.failf("what NATS stores is gone with the pod")
	}
}

// checkCertificates checks that certificates from cert-manager contain the names that peers verify, and that their
// Secrets are the mounted ones.
func checkCertificates(in *inspection) {
	issuers := map[string]string{} // the authorities of NATS and of the services
	for _, certificate := range in.Certificates {
		spec := certificate.Spec
		component := certificate.Metadata.Labels[componentLabel]
		proof := &x509.Certificate{DNSNames: spec.DNSNames}
		switch w := in.workload(component); {
		case component == natsName && w != nil:
			for address := range strings.SplitSeq(in.settings(in.workload(gateway))["nats.url"], ",") {
				host, _, _ := net.SplitHostPort(strings.TrimPrefix(address, "tls://"))
				if err := proof.VerifyHostname(host); err != nil {
					in.failf("%s: %w", certificate.Metadata.Name, err)
				}
			}
			in.mustMount(w, spec.SecretName)
		case w != nil:
			if !slices.Equal(spec.DNSNames, []string{"runnel-" + component}) {
				in.failf("%s names %v, not the role of %s alone", certificate.Metadata.Name, spec.DNSNames, component)
			}
			in.mustMount(w, spec.SecretName)
		case component == "admin":
			if !slices.Equal(spec.DNSNames, []string{"runnel-admin"}) {
				in.failf("%s names %v, not the role of operators", certificate.Metadata.Name, spec.DNSNames)
			}
		default:
			in.failf("%s is for nothing here", certificate.Metadata.Name)
		}
		issuers[certificate.Metadata.Labels[componentLabel]] = spec.IssuerRef.Kind + " " + spec.IssuerRef.Name
		for _, usage := range []string{"server auth", "client auth"} {
			if !slices.Contains(spec.Usages, usage) {
				in.failf("%s is not good for %s", certificate.Metadata.Name, usage)
			}
		}
	}
	in.checkIssuers(issuers)
}

func (in *inspection) checkIssuers(issuers map[string]string) {
	for component, issuer := range issuers {
		if component != natsName && issuer == issuers[natsName] {
			in.failf("NATS takes %s for one of its servers: both have certificates of the %s", component, issuer)
		}
	}
}

func (in *inspection) mustMount(w *Workload, secret string) {
	if !slices.ContainsFunc(w.Pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == secret }) {
		in.failf("%s does not mount %s, which is made for it", w.Name, secret)
	}
}
