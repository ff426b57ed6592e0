package journal

import (
	"hash/fnv"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Source identifies the share of the journal that a record counts against: 24 bits of a
// hash of the sandbox's id, or of the VM's CID. 0 is the host itself, and the source of
// records by older versions.
type Source uint32

// sourceKeys are the resource attributes that name the source; the first one present
// counts. shimtrace sets them in each resource of a sandbox, and nobody else can.
var sourceKeys = []string{names.Sandbox, names.CID}

// sourceOf returns the source of a resource's spans. Writers append the spans of one
// sandbox at a time.
func sourceOf(resource *resourcepb.Resource) Source {
	for _, key := range sourceKeys {
		for _, a := range resource.GetAttributes() {
			if a.Key == key {
				return hashSource(a.Value)
			}
		}
	}
	return 0
}

// SourceOf returns the source of a sandbox's spans. Those by older versions are of
// source 0.
func SourceOf(sandbox string) Source { return hash(sandbox, 0) }

func hashSource(v *commonpb.AnyValue) Source { return hash(v.GetStringValue(), v.GetIntValue()) }

func hash(text string, n int64) Source {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	_, _ = h.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	const bits = 1<<24 - 1
	sum := h.Sum32()
	return Source(max((sum>>24^sum)&bits, 1))
}

// postedShares is how many shares the programs of the host have together. One that
// posts under ever new names gets no more.
const postedShares = 8

// PostedSource returns the share of a program of the host that posts its spans, by its
// name for itself.
func PostedSource(service string) Source {
	return hash("posted", int64(hash(service, 0)%postedShares))
}
