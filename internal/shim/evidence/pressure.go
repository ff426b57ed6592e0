package evidence

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Pressure is for how long, since the host's boot, some of its processes could not go on
// for want of a resource (Linux, Documentation/accounting/psi.rst).
type Pressure map[string]time.Duration // by resource

// resources are the kernel's, and the attributes for them.
var resources = []struct{ file, key string }{
	{"cpu", names.PressureCPU}, {"io", names.PressureIO}, {"memory", names.PressureMemory},
}

// ReadPressure reads it, below a proc file system; what is not there is left out.
func ReadPressure(proc string) Pressure {
	p := make(Pressure, len(resources))
	for _, r := range resources {
		text, err := os.ReadFile(filepath.Join(proc, "pressure", r.file))
		if err != nil {
			continue
		}
		if d, ok := some(text); ok {
			p[r.file] = d
		}
	}
	return p
}

// some returns the total of the line of that name.
func some(text []byte) (time.Duration, bool) {
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || string(fields[0]) != "some" {
			continue
		}
		for _, f := range fields[1:] {
			if total, ok := bytes.CutPrefix(f, []byte("total=")); ok {
				us, err := strconv.ParseInt(string(total), 10, 64)
				return time.Duration(us) * time.Microsecond, err == nil
			}
		}
	}
	return 0, false
}

// Since returns what has been added since another look, as attributes.
func (p Pressure) Since(before Pressure) (attrs []attribute.KeyValue) {
	for _, r := range resources {
		now, ok := p[r.file]
		was, known := before[r.file]
		if ok && known && now >= was {
			attrs = append(attrs, attribute.Int64(r.key, int64(now-was)))
		}
	}
	return attrs
}
