package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/shimtrace/shimtrace/internal/losses"
)

func frame(payload string) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(len(payload)))) + payload
}

// readAll returns the payloads of a stream and the error that ended it.
func readAll(r io.Reader, opts Options) (all []string, err error) {
	reader := NewReader(r, opts)
	for {
		p, err := reader.Next()
		if err != nil {
			return all, err
		}
		all = append(all, string(p))
	}
}

func TestReader(t *testing.T) {
	long := strings.Repeat("long", 50<<10) // beyond the buffer
	want := []string{"a", "", long, "b", long + "!", "c"}
	var stream string
	for _, p := range want {
		stream += frame(p)
	}
	for name, r := range map[string]io.Reader{
		"at once":      strings.NewReader(stream),
		"byte by byte": iotest.OneByteReader(strings.NewReader(stream)),
		"halves":       iotest.HalfReader(strings.NewReader(stream)),
		"data and end": iotest.DataErrReader(strings.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(r, Options{})
			if err != io.EOF {
				t.Errorf("ended with %v", err)
			}
			if len(got) != len(want) {
				t.Fatalf("%d payloads of %d", len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("payload %d differs", i)
				}
			}
		})
	}
}

func TestReaderSkipsOversized(t *testing.T) {
	stream := frame("first") + frame(strings.Repeat("x", 201)) + frame(strings.Repeat("y", 200)) + frame("last")
	c := Counters{Losses: new(losses.Tally)}
	got, err := readAll(iotest.HalfReader(strings.NewReader(stream)), Options{MaxFrame: 200, Counters: &c})
	if err != io.EOF {
		t.Errorf("ended with %v", err)
	}
	if len(got) != 3 || got[0] != "first" || got[1] != strings.Repeat("y", 200) || got[2] != "last" {
		t.Errorf("got %q", got)
	}
	if c.Losses.Of(losses.Oversized) != 1 || c.SkippedBytes.Load() != 201 {
		t.Errorf("counted %d frames, %d bytes", c.Losses.Of(losses.Oversized), c.SkippedBytes.Load())
	}
}

func TestReaderCutShort(t *testing.T) {
	stream := frame("whole") + frame(strings.Repeat("x", 100<<10))
	whole := len(frame("whole"))
	for _, at := range []int{1, 7, 8, whole - 1, whole + 1, whole + 8, whole + 9, len(stream) - 1} {
		c := Counters{Losses: new(losses.Tally)}
		_, err := readAll(strings.NewReader(stream[:at]), Options{Counters: &c})
		if !errors.Is(err, io.ErrUnexpectedEOF) || c.Losses.Of(losses.CutShort) != 1 {
			t.Errorf("cut at %d: %v, counted %d", at, err, c.Losses.Of(losses.CutShort))
		}
	}
	for _, at := range []int{0, whole} {
		c := Counters{Losses: new(losses.Tally)}
		if _, err := readAll(strings.NewReader(stream[:at]), Options{Counters: &c}); err != io.EOF || c.Losses.Of(losses.CutShort) != 0 {
			t.Errorf("cut at %d: %v, counted %d", at, err, c.Losses.Of(losses.CutShort))
		}
	}
	_, err := readAll(strings.NewReader(stream), Options{MaxFrame: 10})
	if err != io.EOF {
		t.Errorf("oversized frame that is whole: %v", err)
	}
	_, err = readAll(strings.NewReader(stream[:len(stream)-1]), Options{MaxFrame: 10})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("oversized frame cut short: %v", err)
	}
}

// A killed VM's connection is reset.
func TestReaderReset(t *testing.T) {
	for _, tc := range []struct {
		stream string
		lost   uint64
	}{{frame("whole"), 0}, {frame("whole") + frame("half")[:10], 1}} {
		c := Counters{Losses: new(losses.Tally)}
		r := io.MultiReader(strings.NewReader(tc.stream), iotest.ErrReader(syscall.ECONNRESET))
		got, err := readAll(r, Options{Counters: &c})
		if len(got) != 1 || !errors.Is(err, syscall.ECONNRESET) || c.Losses.Of(losses.CutShort) != tc.lost {
			t.Errorf("%d payloads, %v, counted %d", len(got), err, c.Losses.Of(losses.CutShort))
		}
	}
}

// An announced length costs nothing until the bytes arrive.
func TestReaderAllocatesWhatArrives(t *testing.T) {
	const announced = 1 << 30
	stream := binary.BigEndian.AppendUint64(nil, announced)
	stream = append(stream, make([]byte, 100<<10)...)
	r := NewReader(bytes.NewReader(stream), Options{MaxFrame: announced})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ended with %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes for 100 KiB", took)
	}
}

func TestReaderLargestLength(t *testing.T) {
	stream := binary.BigEndian.AppendUint64(nil, math.MaxUint64)
	c := Counters{Losses: new(losses.Tally)}
	_, err := readAll(strings.NewReader(string(stream)+"rest"), Options{Counters: &c})
	if !errors.Is(err, io.ErrUnexpectedEOF) || c.Losses.Of(losses.Oversized) != 1 || c.SkippedBytes.Load() != 4 {
		t.Errorf("%v, counted %d, %d bytes", err, c.Losses.Of(losses.Oversized), c.SkippedBytes.Load())
	}
}
