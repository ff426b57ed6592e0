package handover

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestStreamForgetsLargeBuffers(t *testing.T) {
	for name, take := range map[string]func(s *Stream, n int) error{
		"peek": func(s *Stream, n int) error {
			_, err := s.Peek(n)
			return err
		},
		"next": func(s *Stream, n int) error {
			b, err := s.Next()
			if len(b) < n {
				return errors.Join(err, io.ErrShortBuffer)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStream(bytes.NewReader(make([]byte, 1<<20)), nil)
			defer s.Release()
			for left := 1 << 20; left > 0; {
				n := min(left, smallBuffer)
				if name == "peek" {
					n = left
				}
				if err := take(s, n); err != nil {
					t.Fatal(err)
				}
				n = len(s.Buffered())
				s.Discard(n, Mark{})
				left -= n
			}
			_, _ = s.Peek(1)
			if len(s.buf) != smallBuffer {
				t.Errorf("an idle stream keeps %d bytes", len(s.buf))
			}
		})
	}
}

// TestStreamGrowsWithWhatArrives: what a header announces costs nothing.
func TestStreamGrowsWithWhatArrives(t *testing.T) {
	s := NewStream(bytes.NewReader(make([]byte, 10000)), nil)
	defer s.Release()
	if _, err := s.Peek(maxPeek); !errors.Is(err, io.EOF) || len(s.Buffered()) != 10000 {
		t.Errorf("%v with %d bytes", err, len(s.Buffered()))
	}
	if len(s.buf) > largeBuffer {
		t.Errorf("a buffer of %d for 10000 bytes", len(s.buf))
	}
}

func TestStreamKeepsWhatCameBeforeAnError(t *testing.T) {
	broken := errors.New("broken")
	s := NewStream(io.MultiReader(bytes.NewReader([]byte("some")), iotest.ErrReader(broken)), nil)
	defer s.Release()
	if _, err := s.Peek(10); !errors.Is(err, broken) || string(s.Buffered()) != "some" {
		t.Errorf("%v with %q", err, s.Buffered())
	}
	if b, err := s.Next(); err != nil || string(b) != "some" {
		t.Errorf("%q, %v", b, err)
	}
}
