package storytest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Names of pods that ran on real Kata 4.1 under QEMU, with two containers and some execs
// each, under the Go runtime and under runtime-rs. They have the runtime's and the agent's
// spans, as package collate placed them below the shim's calls.
const (
	GoPod   = "kata-4.1.0-pod"
	RustPod = "kata-4.1.0-rs-pod"
)

// Pods are both.
var Pods = []string{GoPod, RustPod}

//go:embed *.otlp.gz
var captured embed.FS

// Captured returns the spans of one of the Pods, as in a journal.
func Captured(name string) []byte {
	data, err := captured.ReadFile(name + ".otlp.gz")
	if err != nil {
		panic(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		panic(err)
	}
	if data, err = io.ReadAll(z); err != nil {
		panic(err)
	}
	return data
}

// Another returns the spans of a captured pod as those of pod number n, which started n
// minutes later.
func Another(data []byte, n uint64) *tracepb.TracesData {
	pod := new(tracepb.TracesData)
	if err := proto.Unmarshal(data, pod); err != nil {
		panic(err)
	}
	salt := func(id []byte) {
		if len(id) > 0 {
			h := sha256.Sum256(binary.BigEndian.AppendUint64(bytes.Clone(id), n))
			copy(id, h[:])
		}
	}
	for _, rs := range pod.ResourceSpans {
		for i, a := range rs.Resource.Attributes {
			switch a.Key {
			case names.Sandbox, names.Run:
				h := sha256.Sum256(fmt.Appendf(nil, "%s %d", a.Value.GetStringValue(), n))
				rs.Resource.Attributes[i] = Attr(a.Key, fmt.Sprintf("%x", h))
			case names.Pod:
				rs.Resource.Attributes[i] = Attr(a.Key, fmt.Sprintf("web-%d", n))
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				for _, id := range [][]byte{s.TraceId, s.SpanId, s.ParentSpanId} {
					salt(id)
				}
				for _, l := range s.Links {
					salt(l.TraceId)
					salt(l.SpanId)
				}
				later := n * uint64(time.Minute)
				s.StartTimeUnixNano += later
				s.EndTimeUnixNano += later
				for _, e := range s.Events {
					e.TimeUnixNano += later
				}
			}
		}
	}
	return pod
}
