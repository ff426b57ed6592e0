package host

import (
	"os"
	"testing"
)

// BenchmarkProcess is a look at one process, of which a host has many.
func BenchmarkProcess(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Proc("/proc").Process(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}
