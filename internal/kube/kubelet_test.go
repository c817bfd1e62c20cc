// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
)

// kubelet serves podresources as a kubelet does.
type kubelet struct {
	podresources.UnimplementedPodResourcesListerServer

	socket string

	mu          sync.Mutex
	pods        []*podresources.PodResources
	getFails    []error // one for each call, the last for ever
	listFails   []error
	calls       []string
	connections int
	stop        func()
}

// newKubelet starts a kubelet. Paths of sockets have at most 108 bytes, and folders of tests are named after the tests.
func newKubelet(t *testing.T, pods ...*podresources.PodResources) *kubelet {
	t.Helper()
	k := stoppedKubelet(t, pods...)
	k.start(t)
	return k
}

func stoppedKubelet(t *testing.T, pods ...*podresources.PodResources) *kubelet {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelet") //nolint:usetesting // See above.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &kubelet{socket: filepath.Join(dir, "kubelet.sock"), pods: pods}
}

// start serves at the socket, and replaces what is there.
func (k *kubelet) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(k.socket)
	l, err := net.Listen("unix", k.socket) //nolint:noctx // It does not wait.
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(server, k)
	go func() { _ = server.Serve(&counted{Listener: l, kubelet: k}) }()
	k.stop = sync.OnceFunc(server.Stop)
	t.Cleanup(k.stop)
}

// counted counts the connections.
type counted struct {
	net.Listener

	kubelet *kubelet
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.kubelet.mu.Lock()
		defer c.kubelet.mu.Unlock()
		c.kubelet.connections++
	}
	return conn, err
}

func next(fails *[]error) error {
	if len(*fails) == 0 {
		return nil
	}
	err := (*fails)[0]
	if len(*fails) > 1 {
		*fails = (*fails)[1:]
	}
	return err
}

func (k *kubelet) Get(_ context.Context, r *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, "Get")
	if err := next(&k.getFails); err != nil {
		return nil, err
	}
	for _, p := range k.pods {
		if p.GetName() == r.GetPodName() && p.GetNamespace() == r.GetPodNamespace() {
			return &podresources.GetPodResourcesResponse{PodResources: p}, nil
		}
	}
	return nil, fmt.Errorf("pod %s in namespace %s not found", r.GetPodName(), r.GetPodNamespace()) // as the kubelet says it
}

func (k *kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, "List")
	if err := next(&k.listFails); err != nil {
		return nil, err
	}
	return &podresources.ListPodResourcesResponse{PodResources: k.pods}, nil
}

// seen are the calls since the last time.
func (k *kubelet) seen() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	calls := strings.Join(k.calls, " ")
	k.calls = nil
	return calls
}

func resourcesOf(name string, containers ...*podresources.ContainerResources) *podresources.PodResources {
	return &podresources.PodResources{Namespace: "default", Name: name, Containers: containers}
}

// container has devices "resource=id" each in a message of its own, as the kubelet sends them.
func container(devices ...string) *podresources.ContainerResources {
	c := &podresources.ContainerResources{Name: "c"}
	for _, d := range devices {
		resource, id, _ := strings.Cut(d, "=")
		c.Devices = append(c.Devices, &podresources.ContainerDevices{ResourceName: resource, DeviceIds: []string{id}})
	}
	return c
}

func claims(name string, devices ...*podresources.ClaimResource) *podresources.ContainerResources {
	return &podresources.ContainerResources{DynamicResources: []*podresources.DynamicResource{{ClaimName: name, ClaimNamespace: "default", ClaimResources: devices}}}
}

func newKubeletClient(t *testing.T, o kube.KubeletOptions) *kube.Kubelet {
	t.Helper()
	k, err := kube.NewKubelet(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestGiven(t *testing.T) {
	t.Parallel()
	share := "s1"
	vf := func(id string) pod.Device { return pod.Device{Resource: "intel.com/vf", ID: id} }
	tests := map[string]struct {
		containers []*podresources.ContainerResources
		want       kube.Given
	}{
		"nothing": {containers: []*podresources.ContainerResources{container()}},
		"X4 container by container": {
			containers: []*podresources.ContainerResources{container("intel.com/vf=b"), container("intel.com/vf=a")},
			want:       kube.Given{Devices: []pod.Device{vf("b"), vf("a")}},
		},
		"X1 one container's in an order that stays": {
			containers: []*podresources.ContainerResources{container("intel.com/vf=c", "z.com/x=1", "intel.com/vf=a", "intel.com/vf=b")},
			want:       kube.Given{Devices: []pod.Device{vf("a"), vf("b"), vf("c"), {Resource: "z.com/x", ID: "1"}}},
		},
		"a device near two NUMA nodes is one": {
			containers: []*podresources.ContainerResources{container("intel.com/vf=a", "intel.com/vf=a")},
			want:       kube.Given{Devices: []pod.Device{vf("a")}},
		},
		"X7 devices of claims": {
			containers: []*podresources.ContainerResources{
				claims("web-net", &podresources.ClaimResource{DriverName: "d", PoolName: "p", DeviceName: "2"}, &podresources.ClaimResource{DriverName: "d", PoolName: "p", DeviceName: "1", ShareId: &share}),
				claims("web-net", &podresources.ClaimResource{DriverName: "d", PoolName: "p", DeviceName: "2"}, &podresources.ClaimResource{DriverName: "d"}),
			},
			want: kube.Given{Claimed: []pod.ClaimedDevice{
				{Claim: "web-net", Driver: "d", Pool: "p", Device: "1", Share: "s1"}, {Claim: "web-net", Driver: "d", Pool: "p", Device: "2"},
			}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKubelet(t, resourcesOf("other", container("intel.com/vf=x")), resourcesOf("web", tc.containers...))
			for _, by := range []string{"Get", "List"} {
				if by == "List" {
					k.getFails = []error{status.Error(codes.Unimplemented, "unknown method Get")}
				}
				got, err := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket}).Given(t.Context(), web)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("Given by %s (-want +got):\n%s", by, diff)
				}
			}
		})
	}
}

func TestCallsForAPod(t *testing.T) {
	t.Parallel()
	disabled := errors.New("PodResources API Get method disabled") // as the kubelet says it, with code Unknown
	tests := map[string]struct {
		getFails, listFails []error
		first, then         string // calls
	}{
		"by Get":                                {nil, nil, "Get", "Get"},
		"a kubelet without Get":                 {[]error{status.Error(codes.Unimplemented, "")}, nil, "Get List", "Get List"},
		"a kubelet whose Get is off":            {[]error{disabled}, nil, "Get List", "Get List"},
		"a kubelet that has too much to do":     {[]error{status.Error(codes.ResourceExhausted, "rejected by rate limit"), nil}, nil, "Get Get", "Get"},
		"a kubelet that has too much for both":  {[]error{disabled}, []error{status.Error(codes.ResourceExhausted, ""), nil}, "Get List Get List", "Get List"},
		"a kubelet that is about to stop, once": {[]error{status.Error(codes.Unavailable, ""), nil}, nil, "Get Get", "Get"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKubelet(t, resourcesOf("web", container("r=a")))
			k.getFails, k.listFails = tc.getFails, tc.listFails
			client := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket})
			for _, want := range []string{tc.first, tc.then, tc.then} {
				if got, err := client.Given(t.Context(), web); err != nil || len(got.Devices) != 1 {
					t.Fatalf("Given = %+v, %v", got, err)
				}
				if got := k.seen(); got != want {
					t.Errorf("calls %q, want %q", got, want)
				}
			}
		})
	}
}

func TestAPodThatTheKubeletDoesNotHave(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	client := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket})
	if _, err := client.Given(t.Context(), web); !errors.Is(err, kube.ErrUnavailable) || !strings.Contains(err.Error(), "default/web") {
		t.Errorf("Given = %v", err)
	}
	k.mu.Lock()
	k.pods = []*podresources.PodResources{resourcesOf("web")}
	k.mu.Unlock()
	k.seen()
	if _, err := client.Given(t.Context(), web); err != nil || k.seen() != "Get" {
		t.Errorf("Given = %v: Get was given up for a pod that was not there", err)
	}
}

func TestOneConnection(t *testing.T) {
	t.Parallel()
	k := newKubelet(t, resourcesOf("web", container("r=a")))
	client := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket})
	k.mu.Lock()
	if k.connections != 0 {
		t.Errorf("%d connections before the first call", k.connections)
	}
	k.mu.Unlock()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := client.Given(t.Context(), web); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.connections != 1 {
		t.Errorf("%d connections for 50 calls at once, want 1", k.connections)
	}
}

func TestTheKubeletRestarts(t *testing.T) {
	t.Parallel()
	k := newKubelet(t, resourcesOf("web", container("r=a")))
	k.getFails = []error{status.Error(codes.Unimplemented, "")}
	client := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket})
	if _, err := client.Given(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	k.stop()
	if _, err := client.Given(t.Context(), web); !errors.Is(err, kube.ErrUnavailable) {
		t.Errorf("Given without a kubelet = %v", err)
	}
	k.getFails = nil // it was upgraded
	k.start(t)
	k.seen()
	if got, err := client.Given(t.Context(), web); err != nil || len(got.Devices) != 1 {
		t.Fatalf("Given after a restart = %+v, %v", got, err)
	}
	if got := k.seen(); got != "Get" {
		t.Errorf("calls %q after a restart: Get was not tried again", got)
	}
}

// TestAKubeletThatIsRestarting: the socket of the last one is there, and nobody listens yet.
func TestAKubeletThatIsRestarting(t *testing.T) {
	t.Parallel()
	k := stoppedKubelet(t, resourcesOf("web", container("r=a")))
	l, err := net.Listen("unix", k.socket) //nolint:noctx // It does not wait.
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	refused := sync.OnceFunc(func() { k.start(t) })
	client := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket, Count: func(_, code string) {
		if code == codes.Unavailable.String() {
			refused()
		}
	}})
	if _, err := client.Given(t.Context(), web); err != nil {
		t.Errorf("Given = %v: the kubelet was not waited for", err)
	}
}

func TestAKubeletThatHangs(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.mu.Lock() // no call ends
	defer k.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket}).Given(ctx, web); !errors.Is(err, kube.ErrUnavailable) {
		t.Errorf("Given = %v", err)
	}
}

func TestAnAnswerThatIsTooLarge(t *testing.T) {
	t.Parallel()
	k := newKubelet(t, resourcesOf("web", container("r="+strings.Repeat("x", 17<<20))))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := newKubeletClient(t, kube.KubeletOptions{Socket: k.socket}).Given(ctx, web); !errors.Is(err, kube.ErrUnavailable) {
		t.Errorf("Given = %v", err)
	}
}

func TestNoKubelet(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "kubelet.sock")
	broken := filepath.Join(t.TempDir(), "checkpoint")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	golden := "testdata/checkpoint.json"
	tests := map[string]struct {
		checkpoint string
		uid        string
		want       []pod.Device
		says       []string
		count      string
	}{
		"is an error that names the socket":                      {"", "u1", nil, []string{none, "--pod-resources-socket"}, "Get Unavailable"},
		"nor a checkpoint":                                       {none, "u1", nil, []string{none}, "Get Unavailable"},
		"the checkpoint says it":                                 {golden, "u1", []pod.Device{{Resource: "intel.com/vf", ID: "0000:03:02.1"}, {Resource: "intel.com/vf", ID: "0000:03:02.0"}, {Resource: "intel.com/vf", ID: "0000:03:02.2"}}, nil, "Get Unavailable,checkpoint OK"},
		"the pod is not in the checkpoint":                       {golden, "u9", nil, []string{"not in it"}, "Get Unavailable,checkpoint Unknown"},
		"the checkpoint is broken":                               {broken, "u1", nil, []string{broken, "1.20"}, "Get Unavailable,checkpoint Unknown"},
		"a runtime that sends no UID has no use of a checkpoint": {golden, "", nil, []string{none}, "Get Unavailable"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var counted []string
			count := func(call, code string) { counted = append(counted, call+" "+code) }
			client := newKubeletClient(t, kube.KubeletOptions{Socket: none, Checkpoint: tc.checkpoint, Count: count})
			got, err := client.Given(t.Context(), pod.Ref{Namespace: "default", Name: "web", UID: tc.uid})
			if diff := cmp.Diff(tc.want, got.Devices); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			if (err != nil) != (tc.says != nil) || (err != nil && !errors.Is(err, kube.ErrUnavailable)) {
				t.Errorf("Given = %v", err)
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			// One call: a socket that is not there is not waited for.
			if diff := cmp.Diff(tc.count, strings.Join(counted, ",")); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNewKubeletRefuses(t *testing.T) {
	t.Parallel()
	if _, err := kube.NewKubelet(kube.KubeletOptions{Socket: "kubelet.sock"}); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("NewKubelet = %v", err)
	}
}
