package deploytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// Running is an installation running as processes on this machine. Each service has the environment of its manifest,
// except that addresses are local and history uses a SQLite file.
type Running struct {
	Processes map[string]*launch.Process // by component
	// Addresses are the listen addresses of a component, by setting, such as "gateway.listen".
	Addresses map[string]map[string]string
	Secrets   Secrets

	nats []*server.Server
}

// Run starts one pod of each service and all NATS servers, and waits until they are ready.
func Run(ctx context.Context, o *Objects, facts Facts) (*Running, error) {
	r := &Running{Processes: map[string]*launch.Process{}, Addresses: map[string]map[string]string{}, Secrets: facts.Secrets}
	in := &inspection{Objects: o, Facts: facts}
	if err := r.start(ctx, in); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

func (r *Running) start(ctx context.Context, in *inspection) error {
	broker, err := r.startNATS(in)
	if err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	for _, component := range []string{history, delivery, gateway} {
		w := in.workload(component)
		root := in.Scratch()
		environment, err := w.Environment(root, r.Secrets)
		if err != nil {
			return err
		}
		if err := r.move(in, w, environment, broker); err != nil {
			return err
		}
		command := launch.Command{
			Name: w.Name, Path: in.Programs[w.Program()].Path, Log: filepath.Join(root, "log"),
			Ready: "http://" + r.Addresses[component]["admin.listen"] + w.Container().ReadinessProbe.HTTPGet.Path,
		}
		for _, name := range slices.Sorted(maps.Keys(environment)) {
			command.Env = append(command.Env, name+"="+environment[name])
		}
		if r.Processes[component], err = launch.Run(ctx, command); err != nil {
			delete(r.Processes, component)
			return err
		}
	}
	return r.awaitNATS(ctx, in.workload(natsName).Container().StartupProbe.HTTPGet.Path)
}

// awaitNATS waits for the condition of the startup probe, because streams that are being created are not healthy yet.
func (r *Running) awaitNATS(ctx context.Context, path string) error {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		status, body, err := r.Get(natsName, path, "")
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("NATS answers %s with %d %s: %w", path, status, body, errors.Join(err, ctx.Err()))
		}
	}
}

// move replaces addresses of the cluster by local addresses.
func (r *Running) move(in *inspection, w *Workload, environment map[string]string, broker string) error {
	r.Addresses[w.Component()] = map[string]string{}
	for name := range environment {
		setting, listens := strings.CutSuffix(name, "_LISTEN")
		if !listens {
			continue
		}
		address, err := reserve.Address()
		if err != nil {
			return err
		}
		environment[name] = address
		r.Addresses[w.Component()][strings.ToLower(strings.TrimPrefix(setting, "RUNNEL_"))+".listen"] = address
	}
	if _, set := environment["RUNNEL_NATS_URL"]; set {
		environment["RUNNEL_NATS_URL"] = broker
	}
	if _, set := environment["RUNNEL_HISTORY_ADDRESS"]; set {
		environment["RUNNEL_HISTORY_ADDRESS"] = "dns:///" + r.Addresses[history]["rpc.listen"]
	}
	if _, set := environment["RUNNEL_HISTORY_DATABASE"]; set {
		environment["RUNNEL_HISTORY_DATABASE"] = "sqlite:" + filepath.Join(in.Scratch(), "history.db")
	}
	return nil
}

var hostOfPod = regexp.MustCompile(`[a-z-]+-([0-9])\.[a-z-]+:6222`)

// startNATS starts the NATS servers configured in the installation's ConfigMap, and returns their addresses for clients.
func (r *Running) startNATS(in *inspection) (string, error) {
	w := in.workload(natsName)
	var routes []string
	for range *w.Replicas {
		address, err := reserve.Address()
		if err != nil {
			return "", err
		}
		routes = append(routes, address)
	}
	var addresses []string
	scheme := "nats://"
	for i := range *w.Replicas {
		file, err := in.writeNATS(w, in.Scratch(), r.Secrets)
		if err != nil {
			return "", err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		moved := hostOfPod.ReplaceAllStringFunc(string(text), func(host string) string {
			return routes[hostOfPod.FindStringSubmatch(host)[1][0]-'0']
		})
		if err := os.WriteFile(file, []byte(moved), 0o600); err != nil {
			return "", err
		}
		options, err := server.ProcessConfigFile(file)
		if err != nil {
			return "", err
		}
		options.ServerName = fmt.Sprintf("%s-%d", w.Name, i)
		options.Host, options.Port, options.HTTPHost, options.HTTPPort = "127.0.0.1", server.RANDOM_PORT, "127.0.0.1", server.RANDOM_PORT
		options.NoSigs, options.NoLog = true, true
		if options.Cluster.Port != 0 {
			host, port, _ := net.SplitHostPort(routes[i])
			options.Cluster.Host = host
			if options.Cluster.Port, err = net.LookupPort("tcp", port); err != nil {
				return "", err
			}
		}
		if options.TLSConfig != nil {
			scheme = "tls://"
		}
		s, err := server.NewServer(options)
		if err != nil {
			return "", err
		}
		r.nats = append(r.nats, s)
		s.Start()
		if !s.ReadyForConnections(30 * time.Second) {
			return "", errors.New("it does not take connections")
		}
		addresses = append(addresses, scheme+s.Addr().String())
	}
	return strings.Join(addresses, ","), nil
}

// Monitor returns the address of the monitoring port of a NATS server.
func (r *Running) Monitor() string { return r.nats[0].MonitorAddr().String() }

// Get sends a request to the admin server of a component, or to NATS's monitoring port. It sends a token if token is not
// empty.
func (r *Running) Get(component, path, token string) (status int, body string, err error) {
	address := r.Addresses[component]["admin.listen"]
	if component == natsName {
		address = r.Monitor()
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// Stop stops all processes, the services in the same way as the kubelet.
func (r *Running) Stop() error {
	var errs []error
	for _, component := range []string{gateway, delivery, history} {
		if process := r.Processes[component]; process != nil {
			errs = append(errs, process.Stop())
		}
	}
	for _, s := range r.nats {
		s.Shutdown()
		s.WaitForShutdown()
	}
	return errors.Join(errs...)
}
