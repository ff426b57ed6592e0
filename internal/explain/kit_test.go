package explain_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Pods that ran on real Kata 4.1 under QEMU, under the Go runtime and under runtime-rs.
const (
	goPod   = "kata-4.1.0-pod"
	rustPod = "kata-4.1.0-rs-pod"
)

// captured returns the bytes of a pod's spans, as in a journal.
func captured(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "waterfall", "storytest", name+".otlp.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// of explains the only story in a message.
func of(t testing.TB, data []byte) *explain.Explanation {
	t.Helper()
	x := waterfall.NewIndex()
	if err := x.Add(data, time.Now()); err != nil {
		t.Fatal(err)
	}
	stories := x.Stories()
	if len(stories) != 1 {
		t.Fatalf("%d stories", len(stories))
	}
	b := waterfall.NewBuilder(stories[0], waterfall.Limits{}, true)
	if err := b.Add(data); err != nil {
		t.Fatal(err)
	}
	return explain.Explain(stories[0], b.Tree(), nil)
}
