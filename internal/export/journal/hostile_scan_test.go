package journal

import (
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestHostileSegments: whatever a journal's files contain, reading them takes the
// memory of the longest record, and time in proportion to their size.
func TestHostileSegments(t *testing.T) {
	marker := newMarker()
	segment := func(fill func(record []byte)) []byte {
		b := appendSegmentHeader(nil, marker, time.Now())
		for len(b) < 4<<20 {
			record := make([]byte, recordHeaderLen)
			copy(record, marker[:])
			fill(record)
			b = append(b, record...)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		text []byte
		size int64 // of the file, with a hole behind the text
	}{
		{"a marker everywhere, before a length that fits", segment(func(r []byte) { binary.LittleEndian.PutUint32(r[24:], maxPayload) }), 0},
		{"a marker everywhere, before a length that does not", segment(func(r []byte) { binary.LittleEndian.PutUint32(r[24:], 1<<31) }), 0},
		{"markers alone", segment(func(r []byte) {
			for i := range r {
				r[i] = marker[i%len(marker)]
			}
		}), 0},
		{"a hole of a terabyte", segment(func([]byte) {}), 1 << 40},
		{"a hole, all of it", nil, 1 << 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := segmentPath(dir, 1)
			if err := os.WriteFile(path, tt.text, 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.size > 0 {
				if err := os.Truncate(path, tt.size); err != nil {
					t.Skip(err)
				}
			}
			began := time.Now()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			st, err := Scan(dir, func(Record) error { return nil })
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 4*maxRecord {
				t.Errorf("it took %d bytes", got)
			}
			if st.Records > 0 && tt.size == 0 {
				t.Errorf("%d records", st.Records)
			}
			t.Logf("%v", time.Since(began))
		})
	}
}

// TestDamageBehindDamage: consecutive damaged records lose only themselves.
func TestDamageBehindDamage(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	const total = 300
	for range total {
		upload(t, j, pad)
	}
	path := segmentPath(dir, segments(t, dir)[0])
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	if _, err := Scan(dir, func(r Record) error { offsets = append(offsets, r.Offset); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < total; i += 2 {
		text[offsets[i]+recordHeaderLen+5] ^= 1
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if names, _, st := readAll(t, dir); len(names) != total/2 || st.CorruptBytes == 0 {
		t.Errorf("%d spans of %d, %+v", len(names), total/2, st)
	}
}
