package agent

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// testdata returns a file of testdata, decompressed.
func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	return testkit.Gunzip(tb, filepath.Join("testdata", name+".gz"))
}

// payloads splits complete frames.
func payloads(tb testing.TB, frames []byte) (all [][]byte) {
	tb.Helper()
	r := NewReader(bytes.NewReader(frames), Options{})
	for {
		p, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, bytes.Clone(p))
	}
}

const (
	capture328   = "kata-3.28.0-agent"
	capture410   = "kata-4.1.0-pod.agent"
	capture410rs = "kata-4.1.0-rs-pod.agent"
	goldenBin    = "golden-bincode"
	goldenJSON   = "golden-json"
)

// message returns a span as a collector reads it.
func message(tb testing.TB, s *span.Span) *tracepb.Span {
	tb.Helper()
	m := new(tracepb.Span)
	if err := proto.Unmarshal(s.AppendOTLP(nil), m); err != nil { // fails if a text is not UTF-8
		tb.Fatal(err)
	}
	return m
}
