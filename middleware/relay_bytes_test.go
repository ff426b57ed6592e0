package middleware_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/middleware"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// frame returns a frame with the length that its payload has.
func frame(stream uint32, typ wire.FrameType, flags uint8, payload []byte) []byte {
	h := wire.Header{Length: uint32(len(payload)), Stream: stream, Type: typ, Flags: flags}
	return append(h.Append(nil), payload...)
}

func request(stream uint32, r *ttrpc.Request) []byte {
	b, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	return frame(stream, wire.TypeRequest, 0, b)
}

func answer(stream uint32, r *ttrpc.Response) []byte {
	b, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	return frame(stream, wire.TypeResponse, 0, b)
}

// state is a request for a state, with a payload of the size.
func state(size int) *ttrpc.Request {
	return &ttrpc.Request{Service: taskService, Method: "State", Payload: make([]byte, size)}
}

// untouched are bytes that must pass in either direction as they came, also when
// every request that can be understood is changed.
func untouched() map[string][]byte {
	oversized := append(wire.Header{Length: wire.MaxPayload + 9, Stream: 1, Type: wire.TypeRequest}.Append(nil), make([]byte, wire.MaxPayload+9)...)
	full := proto.Size(state(wire.MaxPayload))
	return map[string][]byte{
		"nothing":               {},
		"part of a header":      {0, 0, 0},
		"header only":           frame(1, wire.TypeRequest, 0, make([]byte, 9))[:wire.HeaderLen],
		"part of a request":     request(1, state(100))[:60],
		"part of a large one":   request(1, state(1<<20))[:1<<19],
		"oversized":             oversized,
		"part of an oversized":  oversized[:1<<20],
		"announces 4 GiB":       append(wire.Header{Length: 1<<32 - 1, Type: wire.TypeRequest}.Append(nil), "and stops"...),
		"malformed request":     frame(1, wire.TypeRequest, 0, []byte("\xff\xff not an envelope")),
		"unknown type":          frame(1, 77, 0xff, []byte("of a later ttrpc")),
		"type 0":                frame(1, 0, 0, nil),
		"data":                  frame(1, wire.TypeData, 0, []byte("data")),
		"data without any":      frame(1, wire.TypeData, wire.FlagRemoteClosed|wire.FlagNoData, nil),
		"large data":            frame(1, wire.TypeData, 0, bytes.Repeat([]byte("data"), 1<<18)),
		"answer to nothing":     answer(9, &ttrpc.Response{Payload: []byte("hello")}),
		"malformed answer":      frame(1, wire.TypeResponse, 0, []byte("\xff\xff")),
		"as long as ttrpc goes": request(1, state(wire.MaxPayload-(full-wire.MaxPayload))),
		"not ttrpc at all":      []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	}
}

// exchange sends in from one end and returns what arrived at the other when both
// directions have ended.
func exchange(t *testing.T, from, to *net.UnixConn, in []byte, sizes func() int) []byte {
	t.Helper()
	go func() {
		for rest := in; len(rest) > 0; {
			n := min(sizes(), len(rest))
			if _, err := from.Write(rest[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			rest = rest[n:]
		}
		from.CloseWrite()
	}()
	got, err := io.ReadAll(to)
	if err != nil {
		t.Error(err)
	}
	return got
}

// TestBytesPassUntouched sends in pieces of every kind, both ways.
func TestBytesPassUntouched(t *testing.T) {
	pieces := map[string]func() int{
		"whole":  func() int { return 1 << 30 },
		"pieces": func() int { return 1 + rand.IntN(100_000) },
		"bits":   func() int { return 1 + rand.IntN(9) },
	}
	for name, in := range untouched() {
		for cut, sizes := range pieces {
			if cut == "bits" && len(in) > 1<<14 {
				continue
			}
			t.Run(name+" in "+cut, func(t *testing.T) {
				w := connect(t, tracing()...)
				if got := exchange(t, w.client, w.server, in, sizes); !bytes.Equal(got, in) {
					t.Errorf("requests: %d bytes became %d: %.60q", len(in), len(got), got)
				}
				if got := exchange(t, w.server, w.client, in, sizes); !bytes.Equal(got, in) {
					t.Errorf("answers: %d bytes became %d: %.60q", len(in), len(got), got)
				}
				w.wait(t)
			})
		}
	}
}

// TestUntracedRelayChangesNothing: without a provider and a propagator there is
// nothing to be put into requests.
func TestUntracedRelayChangesNothing(t *testing.T) {
	var in []byte
	for i := range uint32(300) {
		in = append(in, request(2*i+1, state(rand.IntN(9000)))...)
	}
	w := connect(t)
	if got := exchange(t, w.client, w.server, in, func() int { return 1 + rand.IntN(20_000) }); !bytes.Equal(got, in) {
		t.Errorf("%d bytes became %d", len(in), len(got))
	}
}

// TestRequestsKeepAllButTheContext sends requests of all sizes around every limit
// and compares what arrives, context aside.
func TestRequestsKeepAllButTheContext(t *testing.T) {
	sizes := []int{0, 1, 100, 3900, 3970, 4000, 4070, 4096, 4097, 8192, 8193, 65536, 1 << 20, wire.MaxPayload - 300}
	var in []byte
	for i, size := range sizes {
		r := state(size)
		r.TimeoutNano = 1e9
		r.Metadata = []*ttrpc.KeyValue{{Key: "containerd-namespace-ttrpc", Value: "k8s.io"}}
		in = append(in, request(uint32(2*i+1), r)...)
	}
	for name, piece := range map[string]func() int{
		"whole":  func() int { return 1 << 30 },
		"pieces": func() int { return 1 + rand.IntN(9000) },
	} {
		t.Run(name, func(t *testing.T) {
			w := connect(t, tracing()...)
			got := exchange(t, w.client, w.server, in, piece)
			for i, size := range sizes {
				h := wire.ParseHeader(got)
				var r ttrpc.Request
				if err := proto.Unmarshal(got[wire.HeaderLen:][:h.Length], &r); err != nil {
					t.Fatal(err)
				}
				got = got[wire.HeaderLen+int(h.Length):]
				if h.Stream != uint32(2*i+1) || h.Flags != 0 || len(r.Payload) != size || r.TimeoutNano != 1e9 {
					t.Errorf("size %d became %+v, %d bytes, timeout %d", size, h, len(r.Payload), r.TimeoutNano)
				}
				if len(r.Metadata) != 2 || r.Metadata[0].Value != "k8s.io" || r.Metadata[1].Key != "traceparent" {
					t.Errorf("size %d has metadata %v", size, r.Metadata)
				}
			}
			if len(got) > 0 {
				t.Errorf("%d bytes more than were sent", len(got))
			}
		})
	}
}

// TestAnswersInPieces: a span is made of an answer however it is cut.
func TestAnswersInPieces(t *testing.T) {
	provider, rec := recorder()
	w := connect(t, provider)
	var requests, answers []byte
	const n = 200
	for i := range uint32(n) {
		requests = append(requests, request(2*i+1, state(5))...)
		answers = append(answers, answer(2*i+1, &ttrpc.Response{Payload: make([]byte, rand.IntN(9000))})...)
		answers = append(answers, frame(2*i+1, wire.TypeData, 0, make([]byte, rand.IntN(20)))...)
	}
	exchange(t, w.client, w.server, requests, func() int { return 1 << 30 })
	if got := exchange(t, w.server, w.client, answers, func() int { return 1 + rand.IntN(5000) }); !bytes.Equal(got, answers) {
		t.Errorf("%d bytes became %d", len(answers), len(got))
	}
	for _, s := range ended(t, rec, n) {
		if s.Status().Description != "" {
			t.Fatalf("%v", s.Status())
		}
	}
}

// TestSecondAnswer: runtime-rs answers some calls twice.
func TestSecondAnswer(t *testing.T) {
	provider, rec := recorder()
	w := connect(t, provider, middleware.WithQuiet(0))
	requests := request(1, state(5))
	answers := append(answer(1, &ttrpc.Response{}), answer(1, &ttrpc.Response{Payload: []byte("again")})...)
	exchange(t, w.client, w.server, requests, func() int { return 1 << 30 })
	if got := exchange(t, w.server, w.client, answers, func() int { return 1 << 30 }); !bytes.Equal(got, answers) {
		t.Errorf("answers became %x", got)
	}
	w.wait(t)
	ended(t, rec, 1)
}
