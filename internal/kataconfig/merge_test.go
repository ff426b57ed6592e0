package kataconfig

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/BurntSushi/toml"
)

// goAgent and goDecoded have the relevant part of the Go runtime's configuration. Its
// shape decides the merge: agents are values in a map.
type goAgent struct {
	KernelModules []string `toml:"kernel_modules"`
	Tracing       bool     `toml:"enable_tracing"`
	DialTimeout   uint32   `toml:"dial_timeout"`
}

type goDecoded struct {
	Hypervisor map[string]map[string]any
	Agent      map[string]goAgent
	Runtime    struct {
		InterNetworkModel string `toml:"internetworking_model"`
		Tracing           bool   `toml:"enable_tracing"`
		JaegerEndpoint    string `toml:"jaeger_endpoint"`
		DisableSeccomp    bool   `toml:"disable_guest_seccomp"`
	}
}

// asGo reads a configuration as the Go runtime does (decodeConfig, decodeDropIns): each
// file is decoded over the former ones, then the file's agent keys are set in the
// former agents.
func asGo(t *testing.T, file string) goDecoded {
	t.Helper()
	var c goDecoded
	if _, err := toml.DecodeFile(file, &c); err != nil {
		t.Fatal(err)
	}
	for _, path := range dropIns(t, file) {
		before := make(map[string]goAgent)
		for name, a := range c.Agent {
			before[name] = a
		}
		meta, err := toml.DecodeFile(path, &c)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range meta.Keys() {
			if len(key) < 3 || key[0] != "agent" {
				continue
			}
			a := before[key[1]]
			from, to := reflect.ValueOf(c.Agent[key[1]]), reflect.ValueOf(&a).Elem()
			found := false
			for i := range to.NumField() {
				if to.Type().Field(i).Tag.Get("toml") == key[2] {
					to.Field(i).Set(from.Field(i))
					found = true
				}
			}
			if !found {
				t.Fatalf("%s: the Go runtime ends with: key %q not found", path, key[2])
			}
			before[key[1]] = a
		}
		c.Agent = before
	}
	return c
}

// asRust reads a configuration as runtime-rs does (drop_in.rs): it merges trees, and
// refuses everything in config.d that is no regular file.
func asRust(t *testing.T, file string) map[string]any {
	t.Helper()
	var merge func(base, over map[string]any)
	merge = func(base, over map[string]any) {
		for k, v := range over {
			b, ok1 := base[k].(map[string]any)
			o, ok2 := v.(map[string]any)
			if ok1 && ok2 {
				merge(b, o)
			} else {
				base[k] = v
			}
		}
	}
	base := make(map[string]any)
	if _, err := toml.DecodeFile(file, &base); err != nil {
		t.Fatal(err)
	}
	for _, path := range dropIns(t, file) {
		if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
			t.Fatalf("runtime-rs refuses %s (%v)", path, err)
		}
		over := make(map[string]any)
		if _, err := toml.DecodeFile(path, &over); err != nil {
			t.Fatal(err)
		}
		merge(base, over)
	}
	return base
}

// dropIns returns all files beside the real configuration, in the order of their names.
func dropIns(t *testing.T, file string) []string {
	t.Helper()
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(file), "config.d")
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return paths
}

// TestGoReads: the Go runtime turns on what was asked for, and nothing else changes.
func TestGoReads(t *testing.T) {
	for name, s := range map[string]Settings{"both": both, "agent": {Agent: true}, "runtime": {Runtime: true, Endpoint: endpoint}} {
		for layout, files := range map[string]map[string]string{"static": static(), "deployed": deployed()} {
			t.Run(layout+" "+name, func(t *testing.T) {
				root := build(t, files)
				file := filepath.Join(root, opt, "configuration-qemu.toml")
				want := asGo(t, file)
				agent := want.Agent["kata"]
				agent.Tracing = s.Agent
				want.Agent["kata"] = agent
				if s.Runtime {
					want.Runtime.Tracing, want.Runtime.JaegerEndpoint = true, endpoint
				}
				turnOn(t, root, s)
				if got := asGo(t, file); !reflect.DeepEqual(got, want) {
					t.Errorf("the Go runtime reads %+v,\nwant %+v", got, want)
				}
			})
		}
	}
}

// TestRustReads: the same for runtime-rs.
func TestRustReads(t *testing.T) {
	for layout, c := range map[string]struct {
		files map[string]string
		file  string
	}{
		"static":   {static(), rust + "configuration.toml"},
		"deployed": {deployed(), rust + "configuration-clh-runtime-rs.toml"},
	} {
		t.Run(layout, func(t *testing.T) {
			root := build(t, c.files)
			file := filepath.Join(root, c.file)
			want := asRust(t, file)
			want["agent"].(map[string]any)["kata"].(map[string]any)["enable_tracing"] = true
			want["runtime"].(map[string]any)["enable_tracing"] = true
			want["runtime"].(map[string]any)["jaeger_endpoint"] = endpoint
			turnOn(t, root, both)
			if got := asRust(t, file); !reflect.DeepEqual(got, want) {
				t.Errorf("runtime-rs reads %+v,\nwant %+v", got, want)
			}
		})
	}
}

// TestMergedAsKata: the plan is checked against the tree that Kata reads.
func TestMergedAsKata(t *testing.T) {
	root := build(t, deployed())
	turnOn(t, root, both)
	for _, c := range find(t, root) {
		ours, err := os.ReadFile(filepath.Join(filepath.Dir(c.File), dirName, fileName))
		if err != nil {
			t.Fatal(err)
		}
		got, err := merged(c.File, filepath.Join(filepath.Dir(c.File), dirName), ours)
		if err != nil {
			t.Fatal(err)
		}
		if want := asRust(t, c.File); !reflect.DeepEqual(map[string]any(got), want) {
			t.Errorf("%s: got %+v,\nwant %+v", c.File, got, want)
		}
	}
}
