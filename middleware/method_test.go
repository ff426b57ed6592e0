package middleware

import (
	"testing"

	sandbox "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestKnownFields holds the numbers against containerd's own definitions.
func TestKnownFields(t *testing.T) {
	services := map[string]protoreflect.FileDescriptor{
		"containerd.task.v2.Task":               taskv2.File_runtime_task_v2_shim_proto,
		"containerd.task.v3.Task":               taskv3.File_runtime_task_v3_shim_proto,
		"containerd.runtime.sandbox.v1.Sandbox": sandbox.File_runtime_sandbox_v1_sandbox_proto,
	}
	if len(services) != len(containerdServices) {
		t.Fatalf("%d services are known, %d checked", len(containerdServices), len(services))
	}
	for name, file := range services {
		service := file.Services().ByName(protoreflect.FullName(name).Name())
		methods := containerdFields[containerdServices[name]]
		if service == nil || string(service.FullName()) != name {
			t.Errorf("%s is not in %s", name, file.Path())
			continue
		}
		if len(methods) != service.Methods().Len() {
			t.Errorf("%s: %d methods are known, it has %d", name, len(methods), service.Methods().Len())
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			f, ok := methods[string(m.Name())]
			if !ok {
				t.Errorf("%s is not known", m.FullName())
			}
			in, out := m.Input(), m.Output()
			if name == "containerd.runtime.sandbox.v1.Sandbox" {
				checkField(t, in, f.SandboxID, "sandbox_id")
				checkField(t, in, f.Bundle, "bundle_path")
				checkField(t, in, f.Options, "options")
			} else {
				checkField(t, in, f.ContainerID, "id")
				checkField(t, in, f.ExecID, "exec_id")
				checkField(t, in, f.Bundle, "bundle")
				checkField(t, in, f.Signal, "signal")
			}
			// These tell of an exit on the side, perhaps long ago.
			if m.Name() != "State" && m.Name() != "SandboxStatus" {
				checkField(t, out, f.ExitStatus, "exit_status")
				checkField(t, out, f.ExitedAt, "exited_at")
			}
			pid := protoreflect.Name("pid")
			if m.Name() == "Connect" {
				pid = "task_pid"
			}
			checkField(t, out, f.PID, pid)
		}
	}
}

// TestPodOfASandbox reads the pod out of what containerd's CRI plugin passes.
func TestPodOfASandbox(t *testing.T) {
	texts := func(values ...string) (b []byte) {
		for i, v := range values {
			b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), v)
		}
		return b
	}
	config := texts(string(texts("web-0", "u-1", "shop")), "host", "/var/log/pods")
	for _, tt := range []struct {
		url   string
		value []byte
		want  Pod
	}{
		{"runtime.v1.PodSandboxConfig", config, Pod{"web-0", "shop", "u-1"}},
		{"type.googleapis.com/runtime.v1alpha2.PodSandboxConfig", config, Pod{"web-0", "shop", "u-1"}},
		{"runtime.v1.ContainerConfig", config, Pod{}},
		{"runtime.v1.PodSandboxConfig", config[:1], Pod{}},
		{"runtime.v1.PodSandboxConfig", nil, Pod{}},
	} {
		m := newMethod(&options{known: ContainerdMethod}, new(settings), "containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox")
		var c Call
		m.readRequest(&c, texts("pod1", "/bundle", "", string(texts(tt.url, string(tt.value)))))
		if c.Pod != tt.want || c.SandboxID != "pod1" {
			t.Errorf("%s: %+v", tt.url, c)
		}
	}
}

// checkField checks that msg has a field of that name exactly where it is known
// to be; 0: nowhere.
func checkField(t *testing.T, msg protoreflect.MessageDescriptor, num protowire.Number, name protoreflect.Name) {
	t.Helper()
	var want protowire.Number
	if f := msg.Fields().ByName(name); f != nil {
		want = f.Number()
	}
	if num != want {
		t.Errorf("%s of %s is %d, known as %d", name, msg.FullName(), want, num)
	}
}
