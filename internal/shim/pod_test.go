package shim

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sandboxapi "github.com/containerd/containerd/api/runtime/sandbox/v1"
	"github.com/containerd/ttrpc"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestPodOfASandboxThatTheShimCreates: with sandboxer = "shim" the bundle has no spec
// when the shim starts, and the pod is in CreateSandbox's options. All spans of the
// sandbox have its name all the same, those of delete too.
func TestPodOfASandboxThatTheShimCreates(t *testing.T) {
	h := newMisconfigured(t)
	h.closeIn()
	os.Remove(h.socket())
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.RegisterService("containerd.runtime.sandbox.v1.Sandbox", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"CreateSandbox": func(_ context.Context, unmarshal func(any) error) (any, error) {
			return new(sandboxapi.CreateSandboxResponse), unmarshal(new(sandboxapi.CreateSandboxRequest))
		},
		"StartSandbox": func(_ context.Context, unmarshal func(any) error) (any, error) {
			return new(sandboxapi.StartSandboxResponse), unmarshal(new(sandboxapi.StartSandboxRequest))
		},
	}})
	l := shimtest.Listen(t, h.socket())
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	h.closeIn = func() { server.Close(); <-served; h.closeIn = func() {} }
	defer func() { h.closeIn() }()

	dir := filepath.Join(h.dir, "journal")
	text := "[journal]\ndir = '" + dir + "'\n[relay]\nstate_dir = '" + h.dir + "/state'\nready_timeout = '30s'\n[agent]\nreceive = 'off'\ninject = 'off'\n[jaeger]\nreceive = 'off'\n[runtime.kata-qemu]\nshim = '" + h.path(named) + "'\n"
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.env = []string{"OTEL_RESOURCE_ATTRIBUTES=city=Z\xfcrich"} // which costs no span
	ours := []string{"-namespace", "k8s.io", "-address", "/no.sock", "-publish-binary", "/bin/false", "-id", "pod1"}
	out, errs, code := h.run(append(ours, "start")...)
	if code != 0 || !strings.Contains(out, "/state/s/") {
		t.Fatalf("start answered %q, %q, %s", out, errs, h.logged())
	}
	conn, err := state.Dial(strings.TrimPrefix(strings.TrimSpace(out), "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	api := sandboxapi.NewTTRPCSandboxClient(client)
	field := func(b []byte, num protowire.Number, v string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
	}
	metadata := field(field(field(nil, 1, "web-0"), 2, "u-1"), 3, "shop")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = api.CreateSandbox(ctx, &sandboxapi.CreateSandboxRequest{SandboxID: "pod1", BundlePath: h.bundle, Options: &anypb.Any{TypeUrl: "runtime.v1.PodSandboxConfig", Value: field(nil, 1, string(metadata))}})
	if err == nil {
		_, err = api.StartSandbox(ctx, &sandboxapi.StartSandboxRequest{SandboxID: "pod1"})
	}
	client.Close()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := state.Read(filepath.Join(h.bundle, state.File)); err != nil || st.Pod != "web-0" || st.PodNamespace != "shop" || st.PodUID != "u-1" {
		t.Errorf("the bundle's state has %+v, %v", st, err)
	}
	if _, errs, code := h.run(append(ours, "-bundle", h.bundle, "delete")...); code != 0 {
		t.Errorf("delete: %s", errs)
	}
	h.closeIn()
	var found []string
	shimtest.Eventually(t, "the spans are in the journal", func() bool {
		found = nil
		_, err := journal.Scan(dir, func(r journal.Record) error {
			traces, err := r.Traces()
			for _, rs := range traces.GetResourceSpans() {
				found = append(found, namesInPod(t, rs)...)
			}
			return err
		})
		all := strings.Join(found, " ")
		return err == nil && strings.Contains(all, names.ShimDelete) && strings.Contains(all, names.SandboxStart) && strings.Contains(all, "CreateSandbox")
	})
}

// namesInPod returns the names of the spans, all of which must be of the pod.
func namesInPod(t *testing.T, rs *tracepb.ResourceSpans) (names []string) {
	t.Helper()
	attrs := make(map[string]int)
	values := make(map[string]string)
	for _, kv := range rs.GetResource().GetAttributes() {
		attrs[kv.Key]++
		values[kv.Key] = kv.GetValue().GetStringValue()
	}
	for _, ss := range rs.ScopeSpans {
		for _, s := range ss.Spans {
			names = append(names, s.Name)
		}
	}
	if values["k8s.pod.name"] != "web-0" || values["k8s.namespace.name"] != "shop" || values["k8s.pod.uid"] != "u-1" || attrs["k8s.pod.name"] != 1 || values["city"] != "Z\uFFFDrich" {
		t.Errorf("%v have %v", names, values)
	}
	return names
}
