package k8stest

import (
	"context"
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// readiness follows every change of the pods of a namespace and remembers how few of each component served at any time.
type readiness struct {
	watch watch.Interface
	done  chan struct{} // closed when follow has returned

	mu      sync.Mutex
	serving map[types.UID]string // the component of each pod that serves
	now     map[string]int
	least   map[string]int
	err     error
}

// follow starts following the pods of a release; the watch ends with the test or with stop.
func (r *release) follow(ctx context.Context, t *testing.T) *readiness {
	t.Helper()
	pods := cluster.Client.CoreV1().Pods(r.namespace)
	list, err := pods.List(ctx, meta.ListOptions{})
	require.NoError(t, err)
	f := &readiness{done: make(chan struct{}), serving: map[types.UID]string{}, now: map[string]int{}, least: map[string]int{}}
	for i := range list.Items {
		f.count(&list.Items[i], serves(&list.Items[i]))
	}
	maps.Copy(f.least, f.now)
	f.watch, err = pods.Watch(ctx, meta.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(t, err)
	go f.run()
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *readiness) run() {
	defer close(f.done)
	for event := range f.watch.ResultChan() {
		pod, ok := event.Object.(*core.Pod)
		f.mu.Lock()
		if !ok {
			f.err = &watchError{event}
		} else {
			f.count(pod, event.Type != watch.Deleted && serves(pod))
		}
		f.mu.Unlock()
	}
}

type watchError struct{ event watch.Event }

func (e *watchError) Error() string { return "the watch of the pods was cut: " + string(e.event.Type) }

// count notes whether a pod serves.
func (f *readiness) count(pod *core.Pod, serving bool) {
	component, before := f.serving[pod.UID]
	switch {
	case serving && !before:
		component = pod.Labels[componentLabel]
		f.serving[pod.UID] = component
		f.now[component]++
	case !serving && before:
		delete(f.serving, pod.UID)
		f.now[component]--
		f.least[component] = min(f.least[component], f.now[component])
	}
}

// fewest is how few pods of each component served since follow.
func (f *readiness) fewest(t *testing.T) map[string]int {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NoError(t, f.err)
	return maps.Clone(f.least)
}

func (f *readiness) stop(t *testing.T) {
	t.Helper()
	f.watch.Stop()
	<-f.done
}
