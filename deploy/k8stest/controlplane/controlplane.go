package controlplane

import (
	"context"
	"crypto/x509/pkix"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	nodestage "sigs.k8s.io/kwok/kustomize/stage/node/fast"
)

var (
	//go:embed stages.yaml
	podStages string
	//go:embed scheduler.yaml
	schedulerConfig string
)

// Config configures a control plane.
type Config struct {
	// Binaries is the directory with etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok.
	Binaries string
	// Dir is the directory for data, certificates and logs. It must exist and be empty.
	Dir string
	// StartTimeout limits the start of each program. The default is 2 minutes, because the machine may be busy.
	StartTimeout time.Duration
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	// Rest connects to the API server as a member of system:masters, without a limit on the rate of calls.
	Rest *rest.Config
	// Kubeconfig is the path of a kubeconfig file with the same access as Rest.
	Kubeconfig string
	// FrontProxy signed the client certificate with which the API server calls the servers of aggregated APIs.
	FrontProxy *Authority
	// Client uses Rest.
	Client kubernetes.Interface

	config    Config
	authority *Authority
	address   string // address of the API server
	processes []*process
}

// Start starts a control plane and waits until its API server answers. If a step fails, Start stops the programs that it
// has started.
func Start(ctx context.Context, config Config) (*ControlPlane, error) {
	if config.StartTimeout == 0 {
		config.StartTimeout = 2 * time.Minute
	}
	c := &ControlPlane{config: config}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"etcd and kube-apiserver", c.startAPIServer},
		{"kube-controller-manager", c.startControllers},
		{"kube-scheduler", c.startScheduler},
		{"kwok", c.startKwok},
	} {
		if err := step.run(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", step.name, err), c.Stop())
		}
	}
	return c, nil
}

// Stop stops every program in reverse order of their start, and waits for each. A program that ended earlier is an error.
func (c *ControlPlane) Stop() error {
	var failures error
	for _, p := range slices.Backward(c.processes) {
		failures = errors.Join(failures, p.stop())
	}
	c.processes = nil
	return failures
}

// run starts a program and waits until ready returns nil.
func (c *ControlPlane) run(ctx context.Context, ready func(context.Context) error, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.StartTimeout)
	defer cancel()
	p, err := start(c.config.Dir, program, filepath.Join(c.config.Binaries, program), args...)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	return p.await(ctx, ready)
}

func (c *ControlPlane) startAPIServer(ctx context.Context) error {
	etcd, err := freeAddress()
	if err != nil {
		return err
	}
	if err := c.run(ctx, dial(etcd), "etcd",
		"--data-dir", c.file("etcd"),
		"--listen-client-urls", "http://"+etcd, "--advertise-client-urls", "http://"+etcd,
		"--listen-peer-urls", "http://127.0.0.1:0",
		"--unsafe-no-fsync",
	); err != nil {
		return err
	}
	if c.address, err = freeAddress(); err != nil {
		return err
	}
	if err := c.issue(); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(c.address)
	if err != nil {
		return err
	}
	return c.run(ctx, c.ready, "kube-apiserver",
		"--etcd-servers", "http://"+etcd,
		"--bind-address", "127.0.0.1", "--secure-port", port,
		"--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none", // a loopback address is not allowed as an endpoint
		"--tls-cert-file", c.file("apiserver.crt"), "--tls-private-key-file", c.file("apiserver.key"),
		"--client-ca-file", c.file("ca.crt"),
		"--authorization-mode", "Node,RBAC",
		"--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.file("accounts.crt"), "--service-account-signing-key-file", c.file("accounts.key"),
		"--requestheader-client-ca-file", c.file("front-proxy-ca.crt"),
		"--proxy-client-cert-file", c.file("front-proxy.crt"), "--proxy-client-key-file", c.file("front-proxy.key"),
		"--requestheader-allowed-names", "front-proxy",
		"--requestheader-username-headers", "X-Remote-User",
		"--requestheader-group-headers", "X-Remote-Group",
		"--requestheader-extra-headers-prefix", "X-Remote-Extra-",
	)
}

// issue makes the certificates of the cluster and of the test's client.
func (c *ControlPlane) issue() error {
	var err error
	if c.authority, err = NewAuthority("k8stest"); err != nil {
		return err
	}
	if c.FrontProxy, err = NewAuthority("k8stest-front-proxy"); err != nil {
		return err
	}
	for name, authority := range map[string]*Authority{"ca.crt": c.authority, "front-proxy-ca.crt": c.FrontProxy} {
		if err := os.WriteFile(c.file(name), authority.PEM, 0o600); err != nil {
			return fmt.Errorf("write the certificate of an authority: %w", err)
		}
	}
	for name, by := range map[string]*Authority{"apiserver": c.authority, "accounts": c.authority, "front-proxy": c.FrontProxy} {
		pair, err := by.Issue(pkix.Name{CommonName: name})
		if err != nil {
			return err
		}
		if err := pair.write(c.file(name+".crt"), c.file(name+".key")); err != nil {
			return err
		}
	}
	if c.Kubeconfig, err = c.kubeconfig(pkix.Name{CommonName: "k8stest", Organization: []string{"system:masters"}}); err != nil {
		return err
	}
	if c.Rest, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return fmt.Errorf("read back %s: %w", c.Kubeconfig, err)
	}
	c.Rest.QPS = -1
	if c.Client, err = kubernetes.NewForConfig(c.Rest); err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	return nil
}

// kubeconfig writes a kubeconfig file for the user of subject.
func (c *ControlPlane) kubeconfig(subject pkix.Name) (string, error) {
	pair, err := c.authority.Issue(subject)
	if err != nil {
		return "", err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["k8stest"] = &clientcmdapi.Cluster{Server: "https://" + c.address, CertificateAuthorityData: c.authority.PEM}
	config.AuthInfos["k8stest"] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}
	config.Contexts["k8stest"] = &clientcmdapi.Context{Cluster: "k8stest", AuthInfo: "k8stest"}
	config.CurrentContext = "k8stest"
	path := c.file(subject.CommonName + ".kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

func (c *ControlPlane) startControllers(ctx context.Context) error {
	kubeconfig, err := c.kubeconfig(pkix.Name{CommonName: "system:kube-controller-manager"})
	if err != nil {
		return err
	}
	// Each controller runs under its own account, with the rights that every cluster grants to it.
	return c.run(ctx, running, "kube-controller-manager",
		"--kubeconfig", kubeconfig, "--leader-elect=false", "--secure-port", "0",
		"--use-service-account-credentials",
		"--service-account-private-key-file", c.file("accounts.key"), "--root-ca-file", c.file("ca.crt"),
		"--horizontal-pod-autoscaler-sync-period", "1s",
		"--horizontal-pod-autoscaler-initial-readiness-delay", "0s",
		"--node-monitor-grace-period", "5m", // a node whose machine was busy for a minute is not lost
	)
}

func (c *ControlPlane) startScheduler(ctx context.Context) error {
	kubeconfig, err := c.kubeconfig(pkix.Name{CommonName: "system:kube-scheduler"})
	if err != nil {
		return err
	}
	config := schedulerConfig + "clientConnection:\n  kubeconfig: " + strconv.Quote(kubeconfig) + "\n"
	if err := os.WriteFile(c.file("scheduler.yaml"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the scheduler's configuration: %w", err)
	}
	return c.run(ctx, running, "kube-scheduler", "--config", c.file("scheduler.yaml"), "--secure-port", "0")
}

func (c *ControlPlane) startKwok(ctx context.Context) error {
	if err := os.WriteFile(c.file("stages.yaml"), []byte(nodestage.DefaultNodeInit+"\n---\n"+podStages), 0o600); err != nil {
		return fmt.Errorf("write kwok's stages: %w", err)
	}
	return c.run(ctx, running, "kwok",
		"--kubeconfig", c.Kubeconfig, "--config", c.file("stages.yaml"),
		"--manage-all-nodes", "--cidr", "10.244.0.0/16", "--node-ip", "10.0.0.1",
		"--node-lease-duration-seconds", "40",
	)
}

// ready reports an error until the API server is ready and has created its required objects.
func (c *ControlPlane) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

func (c *ControlPlane) file(name string) string { return filepath.Join(c.config.Dir, name) }

// running is the readiness check of programs that serve nothing. The test sees their work in the state of nodes and pods.
func running(context.Context) error { return nil }

func dial(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	}
}

// freeAddress returns a loopback address with a free port. Another process may take the port before the program that the
// port is for. The program then logs the reason and exits.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
