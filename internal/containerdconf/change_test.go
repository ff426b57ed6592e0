package containerdconf

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// snapshot returns the state of a tree: names, modes, owners, contents, links.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			if content = string(text); err != nil {
				return err
			}
		case unix.S_IFLNK:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		_, err = b.WriteString(strings.Join([]string{strings.TrimPrefix(path, root), fs.FileMode(st.Mode).String(), string(rune(st.Uid)), string(rune(st.Gid)), content}, "\x00") + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func put(t *testing.T, root, name, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

var wanted = []Runtime{
	Runtime{Section: tomltree.Tree{"options": map[string]any{"SystemdCgroup": true}}}.Traced("runc-traced", "io.containerd.runc.v2", "/x/containerd-shim-runc-traced-v2"),
	{Name: "kata-traced", Section: tomltree.Tree{"runtime_type": "io.containerd.kata-traced.v2"}, Snapshotter: "nydus"},
}

// TestChange: whatever containerd's configuration is, the handlers are in it afterwards,
// in a format that it reads, and without them it is as before, bit for bit.
func TestChange(t *testing.T) {
	const rancher = "var/lib/rancher/k3s/agent/etc/containerd/"
	for name, tt := range map[string]struct {
		files map[string]string
		edit  string
	}{
		"a file without imports":             {map[string]string{"etc/containerd/config.toml": "version = 2\n[grpc]\n  address = \"/x\"\n"}, "etc/containerd/config.toml"},
		"without a line break at its end":    {map[string]string{"etc/containerd/config.toml": "version = 3"}, "etc/containerd/config.toml"},
		"a file that imports a directory":    {map[string]string{"etc/containerd/config.toml": "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n"}, "etc/containerd/conf.d/80-shimtrace.toml"},
		"with other drop-ins in it":          {map[string]string{"etc/containerd/config.toml": "version = 2\nimports = [\"conf.d/*.toml\"]\n", "etc/containerd/conf.d/99-nvidia.toml": "version = 2\n"}, "etc/containerd/conf.d/80-shimtrace.toml"},
		"k3s without a template":             {map[string]string{rancher + "config.toml": "version = 3\n"}, rancher + "config-v3.toml.tmpl"},
		"k3s with a template":                {map[string]string{rancher + "config.toml": "version = 2\n", rancher + "config.toml.tmpl": "{{ template \"base\" . }}\n[debug]\n"}, rancher + "config.toml.tmpl"},
		"RKE2":                               {map[string]string{strings.Replace(rancher, "k3s", "rke2", 1) + "config.toml": "version = 3\n"}, strings.Replace(rancher, "k3s", "rke2", 1) + "config-v3.toml.tmpl"},
		"k0s":                                {map[string]string{"etc/k0s/containerd.toml": "version = 2\nimports = [\"/etc/k0s/containerd.d/*.toml\"]\n"}, "etc/k0s/containerd.d/80-shimtrace.toml"},
		"MicroK8s":                           {map[string]string{"var/snap/microk8s/current/args/containerd-template.toml": "version = 2\n[x]\n  y = '${SNAP_DATA}'\n"}, "var/snap/microk8s/current/args/containerd-template.toml"},
		"an empty drop-in of the operator's": {map[string]string{"etc/containerd/config.toml": "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n", "etc/containerd/conf.d/80-shimtrace.toml": ""}, "etc/containerd/conf.d/80-shimtrace.toml"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, content := range tt.files {
				put(t, root, file, content, 0o640)
			}
			before := snapshot(t, root)
			c := planned(t, root, false)
			if c.Path != filepath.Join(root, tt.edit) || c.Action != Write {
				t.Fatalf("%s %s", c.Action, c.Path)
			}
			if snapshot(t, root) != before {
				t.Fatal("a plan changed something")
			}
			if !strings.Contains(c.Diff, "+++ "+c.Path) || !strings.Contains(c.Diff, "\n+  SystemdCgroup = true\n") {
				t.Errorf("the diff is:\n%s", c.Diff)
			}
			if err := c.Do(); err != nil {
				t.Fatal(err)
			}
			if again := planned(t, root, false); again.Action != Keep {
				t.Errorf("the second time: %s\n%s", again.Action, again.Diff)
			}
			if configs, unread := Find(root); !strings.Contains(tt.edit, ".tmpl") {
				if len(unread) > 0 || len(configs[0].Runtimes) != 2 || configs[0].Runtimes[1].Name != "runc-traced" {
					t.Errorf("%v, %+v", unread, configs)
				}
			}
			removal := removed(t, root)
			if len(removal) != 1 || !strings.Contains(removal[0].Diff, "\n-  SystemdCgroup = true\n") {
				t.Fatalf("%+v", removal)
			}
			if err := removal[0].Do(); err != nil {
				t.Fatal(err)
			}
			if after := snapshot(t, root); after != before {
				t.Errorf("it is not as before:\n%q\n%q", before, after)
			}
			// Undone at once, it is the same.
			c = planned(t, root, false)
			if err := c.Do(); err != nil {
				t.Fatal(err)
			}
			if err := c.Undo(); err != nil {
				t.Fatal(err)
			}
			if after := snapshot(t, root); after != before {
				t.Errorf("undone, it is not as before:\n%q\n%q", before, after)
			}
		})
	}
}

func planned(t *testing.T, root string, force bool) Change {
	t.Helper()
	configs, unread := Find(root)
	if len(unread) > 0 || len(configs) != 1 {
		t.Fatal(configs, unread)
	}
	c, err := Plan(root, configs[0], wanted, force)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func removed(t *testing.T, root string) []Change {
	t.Helper()
	configs, _ := Find(root)
	changes, err := PlanRemoval(root, configs, false)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// TestOthersChanges: what others have written around the block stays; a change within it
// is not lost unless it is to be.
func TestOthersChanges(t *testing.T) {
	root := t.TempDir()
	const file = "etc/containerd/config.toml"
	put(t, root, file, "version = 3\n", 0o600)
	if err := planned(t, root, false).Do(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, file, "# mine\n"+string(text)+"[debug]\n", 0o600)
	if err := removed(t, root)[0].Do(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(root, file)); string(got) != "# mine\nversion = 3\n[debug]\n" {
		t.Errorf("left: %s", got)
	}
	put(t, root, file, strings.Replace(string(text), "SystemdCgroup = true", "SystemdCgroup = false", 1), 0o600)
	configs, _ := Find(root)
	if _, err := Plan(root, configs[0], wanted, false); err == nil || !strings.Contains(err.Error(), "was changed since") {
		t.Errorf("planned: %v", err)
	}
	if _, err := PlanRemoval(root, configs, false); err == nil || !strings.Contains(err.Error(), "--force removes it") {
		t.Errorf("planned to remove: %v", err)
	}
	if c := planned(t, root, true); c.Action != Write {
		t.Errorf("by force: %s", c.Action)
	}
	// Changed between plan and deed.
	c := planned(t, root, true)
	put(t, root, file, "version = 3\n", 0o600)
	if err := c.Do(); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("done: %v", err)
	}
}

// TestRefused: what would not be read, or is somebody else's, is left alone.
func TestRefused(t *testing.T) {
	const handler = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc-traced]\nruntime_type = "
	for text, want := range map[string]string{
		"version = 3\n" + handler + "'io.containerd.other.v2'\n":                                           "rename or remove it there",
		"version = 3\n" + handler + "'io.containerd.runc.v2'\nruntime_path = '" + wanted[0].Path() + "'\n": "in /etc/containerd/config.toml already",
		"version = 3\nplugins = { x = 1 }\n":                                                               "would not be what containerd reads",
		begin + checksum + "x\n[plugins]\n":                                                                "has no end",
	} {
		root := t.TempDir()
		put(t, root, "etc/containerd/config.toml", text, 0o600)
		configs, _ := Find(root)
		if len(configs) != 1 {
			t.Fatalf("%q: %v", text, configs)
		}
		if _, err := Plan(root, configs[0], wanted, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("version = 3"), "a\n", true)
	f.Add([]byte("x "+begin+"\n"+finish), "", false)
	f.Fuzz(func(t *testing.T, content []byte, lines string, made bool) {
		if strings.Contains(lines, finish) {
			return
		}
		if b, err := findBlock(content); err != nil || b != nil {
			return
		}
		with := block{lines: lines, made: made}.with(content)
		b, err := findBlock(with)
		if err != nil || b == nil || b.changed || b.lines != lines || b.made != made {
			t.Fatalf("%+v, %v", b, err)
		}
		if got := b.without(with); string(got) != string(content) {
			t.Errorf("%q became %q", content, got)
		}
	})
}
