package explain_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
)

// registry serves one image of one layer, as an OCI registry does.
type registry struct {
	addr  string
	blobs map[string][]byte // by digest
	types map[string]string
	last  string        // the manifest's digest
	delay time.Duration // of the layer
	layer string
}

// serve serves an image of busybox and a number of small files in a rig's network
// namespace. Its layer comes late by delay.
func serve(t *testing.T, netns, addr string, files int, delay time.Duration) *registry {
	t.Helper()
	r := &registry{addr: addr, blobs: make(map[string][]byte), types: make(map[string]string), delay: delay}
	layer := rootfs(t, files)
	r.layer = r.add("application/vnd.oci.image.layer.v1.tar", layer)
	config := r.json("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{r.layer}},
	})
	r.last = r.json("application/vnd.oci.image.manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": r.descriptor(config), "layers": []any{r.descriptor(r.layer)},
	})
	l, err := otlprecv.ListenTCP(netns, addr)
	check(t, err)
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return r
}

// image is the image's name.
func (r *registry) image() string { return r.addr + "/slow:1" }

func (r *registry) add(typ string, data []byte) string {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	r.blobs[digest], r.types[digest] = data, typ
	return digest
}

func (r *registry) json(typ string, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return r.add(typ, data)
}

func (r *registry) descriptor(digest string) any {
	return map[string]any{"mediaType": r.types[digest], "digest": digest, "size": len(r.blobs[digest])}
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	digest := req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:]
	if digest == "1" {
		digest = r.last
	}
	data, ok := r.blobs[digest]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if digest == r.layer && req.Method == http.MethodGet {
		time.Sleep(r.delay)
	}
	w.Header().Set("Content-Type", r.types[digest])
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
}

// rootfs is a layer with busybox, and empty files that take time to unpack.
func rootfs(t *testing.T, files int) []byte {
	t.Helper()
	busybox, err := os.ReadFile(image.BusyboxPath)
	check(t, err)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	write := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		check(t, w.WriteHeader(h))
		_, err := io.Copy(w, bytes.NewReader(data))
		check(t, err)
	}
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "sys/", "tmp/", "files/"} {
		write(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	write(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, busybox)
	write(&tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	for i := range files {
		write(&tar.Header{Name: fmt.Sprint("files/", i), Typeflag: tar.TypeReg, Mode: 0o644}, nil)
	}
	check(t, w.Close())
	return out.Bytes()
}
