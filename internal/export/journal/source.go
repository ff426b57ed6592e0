package journal

import (
	"hash/fnv"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Source is whose share of the journal a record counts against: 24 bits of a hash of the
// sandbox's id, or of the VM's CID. 0 is the host itself, and whatever writers of an
// earlier version wrote.
type Source uint32

// sourceKeys are the resource attributes that say it, the first of them that is there.
// Ours are on each resource of a sandbox, and nobody else can set them.
var sourceKeys = []string{names.Sandbox, names.CID}

// sourceOf returns whose spans of a resource are. Writers append those of one sandbox at a
// time.
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

func hashSource(v *commonpb.AnyValue) Source {
	h := fnv.New32a()
	_, _ = h.Write([]byte(v.GetStringValue()))
	n := v.GetIntValue()
	_, _ = h.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	const bits = 1<<24 - 1
	sum := h.Sum32()
	return Source(max((sum>>24^sum)&bits, 1))
}
