package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

func TestArchiveIsDeterministicAndReused(t *testing.T) {
	if _, err := os.Stat(BusyboxPath); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: apt-get install busybox-static", err)
		}
		t.Skipf("%v: apt-get install busybox-static", err)
	}
	dir := t.TempDir()
	first, err := Archive(dir, BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Archive(dir, BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(second)
	if err != nil {
		t.Fatal(err)
	}
	if first != second || !os.SameFile(before, after) {
		t.Errorf("second call made %s anew, want %s reused", second, first)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("directory has %v, want only the archive", entries)
	}
}

func TestBuildNamesWhatItHolds(t *testing.T) {
	data, err := build([]byte("a busybox"), []string{"busybox", "sh"})
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, data)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 2 || manifest[0].RepoTags[0] != Busybox || manifest[1].RepoTags[0] != Pause {
		t.Fatalf("manifest %+v, want %s and %s", manifest, Busybox, Pause)
	}
	for _, m := range manifest {
		var config struct {
			Rootfs struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		if err := json.Unmarshal(files[m.Config], &config); err != nil {
			t.Fatalf("configuration %s: %v", m.Config, err)
		}
		want := fmt.Sprintf("sha256:%x", sha256.Sum256(files[m.Layers[0]]))
		if len(config.Rootfs.DiffIDs) != 1 || config.Rootfs.DiffIDs[0] != want {
			t.Errorf("%s: diff ids %v, want %s", m.RepoTags[0], config.Rootfs.DiffIDs, want)
		}
	}
	layer := untar(t, files["layer.tar"])
	if string(layer["bin/busybox"]) != "a busybox" {
		t.Errorf("bin/busybox holds %q", layer["bin/busybox"])
	}
	if _, ok := layer["bin/sh"]; !ok {
		t.Error("the layer has no bin/sh")
	}
}

func untar(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = content
	}
}
