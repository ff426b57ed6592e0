package vm

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/rig"
)

func parts(t *testing.T) Parts {
	t.Helper()
	p, err := findParts()
	var absent *rig.MissingError
	switch {
	case errors.As(err, &absent) && os.Getenv("CI") == "":
		t.Skipf("%v", err)
	case err != nil:
		t.Fatal(err)
	}
	return p
}

func TestInitramfs(t *testing.T) {
	p, dir := parts(t), t.TempDir()
	file := filepath.Join(dir, "file")
	content := strings.Repeat("content", 12345) // its length is no multiple of four
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	im := image{modules: guestModules, services: []string{"true", "false"},
		files: map[string]string{"/b/c/file": file, "a": file}, texts: map[string]string{"b/text": "x"}}
	var images [2][]byte
	for i := range images {
		path := filepath.Join(dir, "image")
		if err := im.write(path, p); err != nil {
			t.Fatal(err)
		}
		var err error
		if images[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the same image twice differs")
	}

	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command(p.Busybox, "cpio", "-i")
	unpack.Dir, unpack.Stdin = root, bytes.NewReader(images[0])
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v\n%s", err, out)
	}
	for name, want := range map[string]string{"a": content, "b/c/file": content, "b/text": "x", "init": initScript,
		"etc/services": "{ true\n} </dev/null &\n{ false\n} </dev/null &\n"} {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
		if st, err := os.Stat(filepath.Join(root, name)); err == nil && st.Mode() != 0o755 {
			t.Errorf("%s: mode %v", name, st.Mode())
		}
	}
	if got, _ := filepath.Glob(filepath.Join(root, "lib/modules/*-vmw_vsock_virtio_transport.ko")); len(got) != 1 {
		t.Errorf("the modules are %v", got)
	}

	im.files["d"] = filepath.Join(dir, "absent")
	if err := im.write(filepath.Join(dir, "image"), p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file gives %v", err)
	}
}

func TestLoadOrder(t *testing.T) {
	p := parts(t)
	files, err := loadOrder(p.Modules, []string{"vmw-vsock-virtio-transport", "vhost_vsock"})
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, f := range files {
		name := moduleName(strings.TrimSuffix(filepath.Base(f), ".ko"))
		if at[name] != 0 {
			t.Errorf("%s is loaded twice", name)
		}
		at[name] = i + 1
	}
	for _, order := range [][2]string{
		{"vsock", "vmw_vsock_virtio_transport_common"},
		{"vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"},
		{"virtio_ring", "vmw_vsock_virtio_transport"},
		{"vhost", "vhost_vsock"},
		{"vmw_vsock_virtio_transport_common", "vhost_vsock"},
	} {
		if at[order[0]] == 0 || at[order[0]] >= at[order[1]] {
			t.Errorf("%s is not loaded before %s: %v", order[0], order[1], files)
		}
	}
	if _, err := loadOrder(p.Modules, []string{"no_such"}); err == nil || !strings.Contains(err.Error(), "no_such") {
		t.Errorf("an unknown module gives %v", err)
	}
}
