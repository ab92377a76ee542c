package k8stest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	releaseName  = "runnel"
	storageClass = "zonal"

	testTimeout = 5 * time.Minute
	waitTimeout = 90 * time.Second
	waitPoll    = 100 * time.Millisecond
)

// The components of the chart, as their label app.kubernetes.io/component says, with the pods each has by default.
var components = map[string]int{"gateway": 2, "delivery": 2, "history": 2, "nats": 3}

// release is an installation of the chart.
type release struct {
	namespace string
}

// newNamespace makes a namespace in which pods must obey the restricted standard, as deploy/README.md asks, and volumes for NATS.
func newNamespace(ctx context.Context, t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name()))
	labels := map[string]string{}
	for _, mode := range []string{"enforce", "warn", "audit"} {
		labels["pod-security.kubernetes.io/"+mode] = "restricted"
	}
	_, err := cluster.Client.CoreV1().Namespaces().
		Create(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: labels}}, meta.CreateOptions{})
	require.NoError(t, err)
	furnish(ctx, t, name)
	return name
}

// furnish makes volumes for NATS and removes them, and the namespace with all that is in it, after the test.
func furnish(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	namespaces, volumes := cluster.Client.CoreV1().Namespaces(), cluster.Client.CoreV1().PersistentVolumes()
	for zone := range zones {
		require.NoError(t, cluster.AddVolume(ctx, namespace+"-"+zone, storageClass, zone, resource.MustParse("100Gi")))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), waitTimeout)
		defer cancel()
		require.NoError(t, namespaces.Delete(ctx, namespace, meta.DeleteOptions{}))
		// The next test finds empty nodes.
		eventually(ctx, t, "the namespace is gone", func(ctx context.Context) error {
			_, err := namespaces.Get(ctx, namespace, meta.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(errors.New("it is still there"), err)
		})
		for zone := range zones {
			require.NoError(t, volumes.Delete(ctx, namespace+"-"+zone, meta.DeleteOptions{}))
		}
	})
}

// addStorageClass adds the default class of the cluster, whose volumes are made by newNamespace.
func addStorageClass(ctx context.Context) error {
	late := storage.VolumeBindingWaitForFirstConsumer
	_, err := cluster.Client.StorageV1().StorageClasses().Create(ctx, &storage.StorageClass{
		ObjectMeta: meta.ObjectMeta{
			Name: storageClass, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:       "kubernetes.io/no-provisioner",
		VolumeBindingMode: &late,
	}, meta.CreateOptions{})
	if err != nil {
		return fmt.Errorf("add storage class %s: %w", storageClass, err)
	}
	return nil
}

// install has helm install the chart and waits until helm says that everything is ready. Arguments go to helm.
func install(ctx context.Context, t *testing.T, args ...string) *release {
	t.Helper()
	r := &release{namespace: newNamespace(ctx, t)}
	r.helm(ctx, t, append([]string{"install", releaseName, chart(), "--wait", "--timeout", waitTimeout.String()}, args...)...)
	r.awaitReady(ctx, t)
	return r
}

// upgrade has helm change the installation, keeping the values that it has. Arguments go to helm.
func (r *release) upgrade(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	r.helm(ctx, t, append([]string{"upgrade", releaseName, chart(), "--reuse-values"}, args...)...)
}

func (r *release) helm(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	helm(ctx, t, append(args, "--namespace", r.namespace, "--kubeconfig", cluster.Kubeconfig)...)
}

// awaitReady waits until every component has at least the pods it is to have, all ready.
func (r *release) awaitReady(ctx context.Context, t *testing.T) {
	t.Helper()
	for component, want := range components {
		eventually(ctx, t, fmt.Sprintf("%d pods of %s are ready", want, component), func(ctx context.Context) error {
			ready := 0
			pods := r.pods(ctx, t, component)
			for i := range pods {
				if serves(&pods[i]) {
					ready++
				}
			}
			if ready < want || ready < len(pods) {
				return fmt.Errorf("%d of %d are", ready, len(pods))
			}
			return nil
		})
	}
}

// pods are those of a component.
func (r *release) pods(ctx context.Context, t *testing.T, component string) []core.Pod {
	t.Helper()
	pods, err := cluster.Client.CoreV1().Pods(r.namespace).List(ctx, meta.ListOptions{LabelSelector: componentLabel + "=" + component})
	require.NoError(t, err)
	return pods.Items
}

const componentLabel = "app.kubernetes.io/component"

// serves reports whether a pod is ready and nobody has asked it to end.
func serves(pod *core.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == core.PodReady {
			return condition.Status == core.ConditionTrue
		}
	}
	return false
}

func chart() string { return root("deploy", "helm", "runnel") }

// helm runs helm with a home of its own.
func helm(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	command := exec.CommandContext(ctx, root(".tools", "bin", "helm"), args...)
	command.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	var output, failure strings.Builder
	command.Stdout, command.Stderr = &output, &failure
	require.NoError(t, command.Run(), "helm %s\n%s", strings.Join(args, " "), &failure)
	return output.String()
}

// document is one rendered object and the text that it was rendered to.
type document struct {
	*unstructured.Unstructured
	text []byte
}

// render has helm render the chart. Arguments go to helm.
func render(ctx context.Context, t *testing.T, namespace string, args ...string) []document {
	t.Helper()
	return documents(t, helm(ctx, t, append([]string{"template", releaseName, chart(), "--namespace", namespace}, args...)...))
}

// documents splits a stream of YAML documents.
func documents(t *testing.T, stream string) []document {
	t.Helper()
	var all []document
	reader := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(stream)))
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		}
		require.NoError(t, err)
		text = bytes.TrimPrefix(text, []byte("---\n"))
		var object unstructured.Unstructured
		require.NoError(t, yaml.Unmarshal(text, &object.Object))
		if len(object.Object) > 0 { // else nothing but comments
			all = append(all, document{&object, text})
		}
	}
}

// deadline is the context of a test: it ends in time for the cleanup that the limit of `go test` would not let happen.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	detach := context.AfterFunc(interrupted, cancel)
	t.Cleanup(func() {
		detach()
		cancel()
	})
	return ctx
}

// eventually waits until check returns nil.
func eventually(ctx context.Context, t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(ctx, waitPoll, waitTimeout, true, func(ctx context.Context) (bool, error) {
		err := check(ctx)
		if err == nil || ctx.Err() == nil {
			last = err // else the time was up in the middle of a call, which explains nothing
		}
		return err == nil, nil
	})
	require.NoError(t, err, "waited in vain until %s: %v", what, last)
}
