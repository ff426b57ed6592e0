package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

// sample returns a segment with n records of one span each, and where they begin.
func sample(t testing.TB, n int) (segment []byte, offsets []int64) {
	t.Helper()
	j := open(t, t.TempDir(), Options{})
	for i := range n {
		upload(t, j, fmt.Sprintf("span %d", i))
	}
	if _, err := Scan(j.Dir(), func(r Record) error { offsets = append(offsets, r.Offset); return nil }); err != nil {
		t.Fatal(err)
	}
	segment, err := os.ReadFile(j.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return segment, offsets
}

// scanBytes scans a segment in memory.
func scanBytes(b []byte, final bool) (records []Record, corrupt int64, err error) {
	s := scanner{r: bytes.NewReader(b), size: int64(len(b)), final: final}
	for {
		r, err := s.next()
		if err != nil {
			return records, s.corrupt, err
		}
		r.Payload = bytes.Clone(r.Payload)
		records = append(records, r)
	}
}

// TestDamageAtEveryByte flips, removes and inserts each byte of a segment: each time
// at most one record may be lost.
func TestDamageAtEveryByte(t *testing.T) {
	const n = 6
	segment, _ := sample(t, n)
	for i := range segment {
		flipped := bytes.Clone(segment)
		flipped[i] ^= 0x55
		for what, b := range map[string][]byte{
			"flipped":  flipped,
			"inserted": append(append(bytes.Clone(segment[:i]), 0x55), segment[i:]...),
			"removed":  append(bytes.Clone(segment[:i]), segment[i+1:]...),
		} {
			if what != "flipped" && i < segmentHeaderLen+recordHeaderLen {
				continue // moves where the first marker is looked for; see below
			}
			records, corrupt, err := scanBytes(b, true)
			if !errors.Is(err, io.EOF) || len(records) < n-1 {
				t.Fatalf("byte %d %s: %d of %d records, %v", i, what, len(records), n, err)
			}
			if corrupt == 0 {
				t.Fatalf("byte %d %s: not noticed", i, what)
			}
		}
	}
}

// TestTornEnd cuts a segment at every length: whole records stay, and records appended
// after the tear are found.
func TestTornEnd(t *testing.T) {
	segment, offsets := sample(t, 3)
	for cut := range segment {
		whole := 0
		for _, end := range append(offsets[1:], int64(len(segment))) {
			if int64(cut) >= end {
				whole++
			}
		}
		records, _, err := scanBytes(segment[:cut], true)
		if !errors.Is(err, io.EOF) || len(records) != whole {
			t.Fatalf("cut at %d: %d records, want %d, %v", cut, len(records), whole, err)
		}
		records, corrupt, err := scanBytes(segment[:cut], false)
		if len(records) != whole || corrupt != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, errIncomplete) {
			t.Fatalf("growing segment cut at %d: %d records, %d corrupt bytes, %v", cut, len(records), corrupt, err)
		}

		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 7), segment[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		f := Follow(dir, Cursor{})
		follow(t, f, whole)
		j := open(t, dir, Options{})
		upload(t, j, "after the tear")
		if got := follow(t, f, 1); got[0] != "after the tear" {
			t.Fatalf("cut at %d: followed %v", cut, got)
		}
		names, _, _ := readAll(t, dir)
		if len(names) != whole+1 || names[whole] != "after the tear" {
			t.Fatalf("cut at %d: %v", cut, names)
		}
		f.Close()
		j.Close()
	}
}

// TestForgedRecord plants a whole record in the payload of one that is then damaged.
// A guest that could know the segment's marker would succeed.
func TestForgedRecord(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("marker known=%v", known), func(t *testing.T) {
			j := open(t, t.TempDir(), Options{})
			upload(t, j, "first")
			m, err := readMarker(j.file)
			if err != nil {
				t.Fatal(err)
			}
			if !known {
				m = newMarker()
			}
			forged, spans := appendDrops(make([]byte, recordHeaderLen), map[string]int{"forged": 1})
			putRecordHeader(forged, m, entry{kind: KindDrops, spans: spans, time: time.Now()})
			at, _, _ := stat(j.file)
			hostile := batch("hostile")
			hostile[0].ScopeSpans[0].Spans[0].Attributes = []*commonpb.KeyValue{{
				Key: "a", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: forged}},
			}}
			if err := journaltest.Append(j, hostile); err != nil {
				t.Fatal(err)
			}
			upload(t, j, "last")
			b, err := os.ReadFile(j.file.Name())
			if err != nil {
				t.Fatal(err)
			}
			b[at+recordHeaderLen+1] ^= 1
			if err := os.WriteFile(j.file.Name(), b, 0o600); err != nil {
				t.Fatal(err)
			}
			names, drops, st := readAll(t, j.Dir())
			if strings.Join(names, " ") != "first last" || st.CorruptBytes == 0 {
				t.Errorf("spans %q, %+v", names, st)
			}
			if (drops["forged"] == 1) != known {
				t.Errorf("drops %v", drops)
			}
		})
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"notes.txt":                "x",
		"1.seg":                    "x",
		"00000000000000000001.seg": "not a journal's segment, but long enough to be one, it seems",
		"00000000000000000002.seg": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := open(t, dir, Options{})
	upload(t, j, "a")
	names, _, st := readAll(t, dir)
	if len(names) != 1 || st.Segments != 2 || st.CorruptBytes == 0 {
		t.Errorf("spans %v, %+v", names, st)
	}
}

// FuzzScan scans arbitrary bytes: it must end, account for every byte, and return
// only records whose checksums hold.
func FuzzScan(f *testing.F) {
	segment, offsets := sample(f, 3)
	f.Add(segment)
	f.Add(segment[:len(segment)-5])
	f.Add(segment[segmentHeaderLen:])
	f.Add(append(bytes.Clone(segment[:offsets[1]+10]), segment[offsets[1]:]...))
	huge := bytes.Clone(segment)
	huge[offsets[1]+26] = 0xff
	f.Add(huge)
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, corrupt, err := scanBytes(b, true)
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		var valid int64
		for _, r := range records {
			end := r.Offset + recordHeaderLen + int64(len(r.Payload))
			if parseRecordHeader(b[r.Offset:]).crc != recordChecksum(b[r.Offset:end]) {
				t.Fatalf("record at %d is not valid", r.Offset)
			}
			valid += end - r.Offset
			_, _ = r.Traces()
			_, _ = r.Drops()
		}
		if valid+corrupt > int64(len(b)) || valid+corrupt < int64(len(b))-segmentHeaderLen {
			t.Fatalf("%d valid and %d corrupt bytes of %d", valid, corrupt, len(b))
		}
		// A growing segment shows a prefix of its final records.
		growing, _, _ := scanBytes(b, false)
		if len(growing) > len(records) {
			t.Fatalf("%d records while growing, %d at the end", len(growing), len(records))
		}
	})
}
