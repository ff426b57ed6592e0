package toolset

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const goodMain = "package main\n\nfunc main() { println(\"built\") }\n"

// publish makes module@v1.0.0 the only thing that the go command can download.
// Its go.mod declares the given path.
func publish(t *testing.T, module, declared, main string) {
	t.Helper()
	proxy := t.TempDir()
	dir := filepath.Join(proxy, module, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	goMod := "module " + declared + "\n\ngo 1.26.0\n"
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for name, text := range map[string]string{"go.mod": goMod, "cmd/tool/main.go": main} {
		w, err := z.Create(module + "@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"v1.0.0.info": `{"Version":"v1.0.0"}`, "v1.0.0.mod": goMod, "v1.0.0.zip": archive.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOPROXY", "file://"+proxy)
	t.Setenv("GONOSUMDB", "*")
	t.Setenv("GOFLAGS", "-modcacherw") // so that the test can remove it
	t.Setenv("GOMODCACHE", t.TempDir())
}

func TestBuild(t *testing.T) {
	for _, tt := range []struct {
		name, declared string
		tool           Tool
	}{
		{"as a requirement", "example.com/tool", Tool{Packages: []string{"cmd/tool"}}},
		{"in place", "example.com/elsewhere", Tool{Packages: []string{"cmd/tool"}, InPlace: true}},
		{"for a program of ours", "example.com/tool", Tool{Main: []byte("//go:build ignore\n\n" + goodMain)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			publish(t, "example.com/tool", tt.declared, goodMain)
			root := t.TempDir()
			tool := tt.tool
			tool.Name, tool.Version, tool.Module = "tool", "v1.0.0", "example.com/tool"

			var log strings.Builder
			if err := Build(t.Context(), root, []Tool{tool}, &log); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"building " + tool.String() + " from example.com/tool\n", "built " + tool.String() + " in "} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("log %q lacks %q", log.String(), want)
				}
			}
			out, err := exec.Command(filepath.Join(tool.Dir(root), "tool")).CombinedOutput()
			if err != nil || string(out) != "built\n" {
				t.Errorf("the tool gives %q, %v", out, err)
			}

			log.Reset()
			if err := Build(t.Context(), root, []Tool{tool}, &log); err != nil || log.String() != "" {
				t.Errorf("second build: %v, log %q, want nothing to do", err, log.String())
			}
		})
	}
}

func TestFailedBuildLeavesNothingAndTheRestIsBuilt(t *testing.T) {
	publish(t, "example.com/tool", "example.com/tool", goodMain)
	root := t.TempDir()
	bad := Tool{Name: "bad", Version: "v1.0.0", Module: "example.com/tool", Packages: []string{"cmd/none"}}
	lacking := Tool{Name: "lacking", Version: "v1.0.0", Needs: []Need{
		{"one-dev", []string{"false"}}, {"present", []string{"true"}}, {"two-dev", []string{"no-such-program"}}}}
	good := Tool{Name: "good", Version: "v1.0.0", Module: "example.com/tool", Packages: []string{"cmd/tool"}}

	err := Build(t.Context(), root, []Tool{bad, lacking, good}, new(strings.Builder))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"build bad-v1.0.0", "cmd/none", "build lacking-v1.0.0: missing packages: run apt-get install one-dev two-dev"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".lock good-v1.0.0" {
		t.Errorf("the cache holds %s", got)
	}
}

func TestBuildWaitsForAnother(t *testing.T) {
	root := t.TempDir()
	unlock, err := lock(t.Context(), filepath.Join(root, ".lock"), new(strings.Builder))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log := waiting{cancel}
	if err := Build(ctx, root, nil, log); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v while another builds, want %v", err, context.Canceled)
	}
	unlock()
	if err := Build(t.Context(), root, nil, log); err != nil {
		t.Errorf("error %v after the other", err)
	}
}

// waiting is a log that gives up as soon as it reads of waiting.
type waiting struct{ cancel func() }

func (w waiting) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), "waiting for another build") {
		w.cancel()
	}
	return len(p), nil
}

func TestToolsAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, tool := range All() {
		if seen[tool.String()] {
			t.Errorf("two tools share the directory %s", tool)
		}
		seen[tool.String()] = true
	}
}
