package explain_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
)

// also returns what else may be named: what the test's machine suffers from is so.
func also(more ...string) []string { return append(more, seeded.Pressed) }

// TestSeededByTheCaller: what containerd and its callers do before they ask the shim.
func TestSeededByTheCaller(t *testing.T) {
	s := start(t, traced.Options{})

	slow := filepath.Join(s.Rig.Dir, "cni")
	check(t, os.MkdirAll(slow, 0o755))
	slow = filepath.Join(slow, "bridge") // found before the real one
	check(t, os.WriteFile(slow, []byte("#!/bin/sh\nsleep 1\nexec /usr/lib/cni/bridge\n"), 0o755))
	p := s.pod("cni")
	check(t, p.start(image.Busybox))
	seeded.Named(t, seeded.Cause{ID: "cni", How: "a CNI plugin that takes a second longer", Parts: seeded.Runc, Also: also()}, p.explained())
	check(t, os.Remove(slow))

	r := serve(t, s.Rig.NetNS(), "127.0.0.1:5000", 0, time.Second)
	p = s.pod("pulled")
	check(t, s.Rig.CRI().Pull(p.ctx, r.image()))
	check(t, p.start(r.image()))
	seeded.Named(t, seeded.Cause{ID: "image-pull", How: "a registry that takes a second for a layer", Parts: seeded.Runc, Also: also("unpack")}, p.explained())

	r = serve(t, s.Rig.NetNS(), "127.0.0.1:5001", 6000, 0)
	p = s.pod("unpacked")
	check(t, s.Rig.CRI().Pull(p.ctx, r.image()))
	check(t, p.start(r.image()))
	seeded.Named(t, seeded.Cause{ID: "unpack", How: "a layer of 6000 files", Parts: seeded.Runc, Also: also("image-pull")}, p.explained())

	p = s.pod("idle")
	time.Sleep(1500 * time.Millisecond) // the cause
	check(t, p.start(image.Busybox))
	seeded.Named(t, seeded.Cause{ID: "idle-caller", How: "a caller that starts the container 1.5 s after the sandbox", Parts: seeded.Runc, Also: also()}, p.explained())

	check(t, s.Rig.CRI().RemovePods(t.Context()))
}

// TestSeededInTheShim: an inner shim that is slow, and a program that is not there.
func TestSeededInTheShim(t *testing.T) {
	root, err := toolset.Root()
	check(t, err)
	script := filepath.Join(t.TempDir(), "containerd-shim-runc-v2")
	text := fmt.Sprintf("#!/bin/sh\nfor last; do :; done\n[ \"$last\" != start ] || sleep 1\nexec %s \"$@\"\n",
		filepath.Join(toolset.Containerd24.Dir(root), "containerd-shim-runc-v2"))
	check(t, os.WriteFile(script, []byte(text), 0o755))
	s := start(t, traced.Options{Config: "[runtime.runc]\nshim = '" + script + "'\n"})

	p := s.pod("slow-shim")
	check(t, p.start(image.Busybox))
	seeded.Named(t, seeded.Cause{ID: "own-shim", How: "an inner shim that sleeps a second before it serves", Parts: seeded.Runc, Also: also()}, p.explained())

	if res := s.Rig.Ctr("run", "--rm", "--runtime", s.Runtime.Shim(), image.Busybox, "broken", "/no/such/program"); res.Code == 0 {
		t.Error("a program that is not there ran")
	}
	e := s.explained("broken", started)
	seeded.Named(t, seeded.Cause{ID: "failed-start", How: "a program that is not in the image", Parts: seeded.Runc, Also: also("own-shim")}, e)
	check(t, s.Rig.CRI().RemovePods(t.Context()))
}

// TestSeededInRunc: a hook that takes long, and a pod that may use little CPU time.
func TestSeededInRunc(t *testing.T) {
	s := start(t, traced.Options{})
	e := s.run("hooked", bundle{root: t.TempDir(), hook: "0.3"}, nil)
	seeded.Named(t, seeded.Cause{ID: "hook", How: "an OCI hook that sleeps 300 ms", Parts: seeded.Runc, Also: also()}, e)

	e = s.run("throttled", bundle{root: t.TempDir(), cgroup: limited(t, s.Rig.Name, "pod1", 2*time.Millisecond), lives: true}, nil)
	seeded.Named(t, seeded.Cause{ID: "cpu-throttled", How: "a pod that may use 2 ms of CPU time in 100 ms", Parts: seeded.Runc, Also: also()}, e)
}
