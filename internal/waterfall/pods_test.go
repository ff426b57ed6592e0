package waterfall

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pods that ran on real Kata 4.1 under QEMU, of two containers and some execs each,
// under the Go runtime and under runtime-rs: the runtime's and the agent's spans, as
// package collate placed them below the shim's calls.
var pods = []string{"kata-4.1.0-pod", "kata-4.1.0-rs-pod"}

func readPod(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".otlp.gz"))
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

// drawData draws the only story in a message.
func drawData(t *testing.T, data []byte, o Options) (string, *Story) {
	t.Helper()
	x := NewIndex()
	if err := x.Add(data, time.Now()); err != nil {
		t.Fatal(err)
	}
	stories := x.Stories()
	if len(stories) != 1 {
		t.Fatalf("%d stories", len(stories))
	}
	b := NewBuilder(stories[0], Limits{}, o.Verbose)
	if err := b.Add(data); err != nil {
		t.Fatal(err)
	}
	o.Location = time.UTC
	var out bytes.Buffer
	if err := Render(&out, stories[0], b.Tree(), o); err != nil {
		t.Fatal(err)
	}
	return out.String(), stories[0]
}

// TestPods draws whole pods, as a person first sees them.
func TestPods(t *testing.T) {
	for _, name := range pods {
		data := readPod(t, name)
		for _, width := range []int{80, 120, 200} {
			out, story := drawData(t, data, Options{Width: width})
			golden(t, fmt.Sprintf("%s-%d.txt", name, width), []byte(out))
			if lines := strings.Count(out, "\n"); lines > 160 {
				t.Errorf("%s: %d lines of %d spans", name, lines, story.Spans)
			}
		}
	}
}
