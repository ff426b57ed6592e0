package host

import "testing"

// FuzzParseTCP: a line is a socket with addresses or none.
func FuzzParseTCP(f *testing.F) {
	f.Add([]byte("  0: 0100007F:37BC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0"))
	f.Add([]byte("  1: 0000000000000000FFFF00000100007F:37BC 0000000000000000FFFF00000100007F:1 01 1:2 0 0 0 0 7"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if s, ok := parseTCP(line); ok && !(s.Local.IsValid() && s.Remote.IsValid()) {
			t.Fatalf("%q is %+v", line, s)
		}
	})
}
