package endpoint

import "testing"

// BenchmarkDecode decodes the captures, from the body to spans that a relay takes.
func BenchmarkDecode(b *testing.B) {
	for name, capture := range map[string]string{"Go": captureGo, "Rust": captureRust} {
		b.Run(name, func(b *testing.B) {
			all := bodies(b, capture)
			size, spans := 0, 0
			for _, body := range all {
				size += len(body)
			}
			d := NewDecoder(Options{})
			var buf []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for _, body := range all {
					_, some, err := d.Decode(body)
					if err != nil {
						b.Fatal(err)
					}
					for i := range some {
						buf = some[i].Append(buf[:0])
					}
				}
			}
			for _, body := range all {
				spans += len(parseWire(body).list(2))
			}
			b.ReportMetric(float64(b.N*spans)/b.Elapsed().Seconds(), "spans/s")
		})
	}
}
