// Package image makes the container images that the tests run, from this
// machine's busybox, without a registry.
//
// Both images share one layer and come in one archive: a shell to run anything
// in, and a sandbox's pause. The bytes depend on busybox alone. It does not
// import the archive into anything; the rig package does.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

const (
	// Busybox runs a shell by default; every applet of busybox is in /bin.
	Busybox = "localhost/busybox:test"
	// Pause does nothing until SIGTERM or SIGINT ends it with status 0.
	Pause = "localhost/pause:test"
)

// BusyboxPath is where Debian's busybox-static puts it. A dynamically linked
// busybox would not run: the image has no libraries.
const BusyboxPath = "/bin/busybox"

// pauseScript waits in the background because a shell runs its traps only
// between commands.
const pauseScript = `trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait $!; done`

// Static reports whether the program at a path is there and needs no libraries.
func Static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Archive writes both images, of the busybox at a path, to a docker-archive in dir and
// returns its path.
// An archive made before from the same busybox by the same rules is reused.
// Several processes may call it at once.
func Archive(dir, path string) (string, error) {
	busybox, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("make the test images: %w (apt-get install busybox-static)", err)
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return "", fmt.Errorf("make the test images: list the applets of %s: %w", path, err)
	}
	archive, err := build(busybox, strings.Fields(string(applets)))
	if err != nil {
		return "", fmt.Errorf("make the test images: %w", err)
	}
	images := filepath.Join(dir, fmt.Sprintf("images-%.12x.tar", sha256.Sum256(archive)))
	if _, err := os.Stat(images); err == nil {
		return images, nil
	}
	if err := writeAtomically(images, archive); err != nil {
		return "", fmt.Errorf("make the test images: %w", err)
	}
	return images, nil
}

// build makes the archive: a manifest, a configuration for each image, and the
// layer.
func build(busybox []byte, applets []string) ([]byte, error) {
	layer, err := rootfs(busybox, applets)
	if err != nil {
		return nil, err
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	files := []file{{name: "layer.tar", data: layer}}
	for _, img := range []struct {
		name string
		cmd  []string
	}{
		{Busybox, []string{"/bin/sh"}},
		{Pause, []string{"/bin/sh", "-c", pauseScript}},
	} {
		config, err := json.Marshal(configOf(layer, img.cmd))
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%x.json", sha256.Sum256(config))
		files = append(files, file{name: name, data: config})
		manifest = append(manifest, entry{name, []string{img.name}, []string{"layer.tar"}})
	}
	index, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	return archive(append(files, file{name: "manifest.json", data: index}))
}

// configOf is an image's configuration in Docker's format.
func configOf(layer []byte, cmd []string) any {
	return map[string]any{
		"created":      "1970-01-01T00:00:00Z",
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Env": []string{"PATH=/bin:/sbin:/usr/bin"},
			"Cmd": cmd,
		},
		"rootfs": map[string]any{
			"type":     "layers",
			"diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))},
		},
		"history": []map[string]string{{"created_by": "shimtrace integration tests"}},
	}
}

// rootfs is the one layer: busybox under all its names and the few files that
// runtimes look for.
func rootfs(busybox []byte, applets []string) ([]byte, error) {
	var files []file
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		files = append(files, file{name: dir + "/", mode: mode})
	}
	files = append(files,
		file{name: "etc/passwd", data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		file{name: "etc/group", data: []byte("root:x:0:\n")},
		file{name: "bin/busybox", mode: 0o755, data: busybox},
	)
	for _, a := range applets {
		if a != "busybox" {
			files = append(files, file{name: "bin/" + a, link: "busybox"})
		}
	}
	return archive(files)
}

// A file of a tar archive: a directory when its name ends with a slash.
type file struct {
	name string
	mode int64 // 0644 if zero
	link string
	data []byte
}

// archive writes files in their order, with no times and no owners.
func archive(files []file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Linkname: f.link, Typeflag: tar.TypeReg}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		switch {
		case f.link != "":
			h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("archive %s: %w", f.name, err)
		}
		if _, err := io.Copy(w, bytes.NewReader(f.data)); err != nil {
			return nil, fmt.Errorf("archive %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func writeAtomically(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".images-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
