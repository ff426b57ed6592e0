package traced_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/integration/rig"
)

// maxPayload is the longest message that ttrpc takes, in bytes.
const maxPayload = 4 << 20

// frame is a ttrpc frame; see PROTOCOL.md of containerd/ttrpc.
func frame(stream uint32, kind, flags byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(append(b, kind, flags), payload...)
}

// request is a request of that length as a whole, or as long as it must be.
func request(t *testing.T, service, method string, length int) []byte {
	t.Helper()
	encode := func(id int) []byte {
		msg, err := proto.Marshal(&task.StateRequest{ID: strings.Repeat("x", id)})
		check(t, err)
		b, err := proto.Marshal(&ttrpc.Request{Service: service, Method: method, Payload: msg, TimeoutNano: int64(time.Minute)})
		check(t, err)
		return b
	}
	b := encode(0)
	for id := max(length-len(b), 0); len(b) < length; id += length - len(b) {
		if b = encode(id); len(b) > length {
			b = encode(id - (len(b) - length))
			break
		}
	}
	return b
}

// strayData is the name of a case that a shim of containerd before 2 does not survive:
// its ttrpc, 1.2.7, panics at data for a stream that it does not know. (Later ones
// still do so, at times, at data for a unary method.)
const strayData = "data without a stream"

// halfRequest is the name of a case in which a shim of containerd 1.6 keeps the
// connection open for ever.
const halfRequest = "half a request"

// sameFrames sends what no client would.
func sameFrames(t *testing.T, direct, relayed *handShim, v rig.Version, service string) {
	const asRequest, asResponse, asData = 1, 2, 3
	short := request(t, service, "State", 0)
	full := request(t, service, "State", maxPayload)
	if len(full) != maxPayload {
		t.Fatalf("the longest request has %d bytes", len(full))
	}
	for name, tt := range map[string]struct {
		sent    []byte
		answers int
	}{
		"4 MiB":                    {frame(1, asRequest, 0, full), 1},
		"almost 4 MiB":             {frame(1, asRequest, 0, request(t, service, "State", maxPayload-10)), 1},
		"a byte more":              {frame(1, asRequest, 0, append(slices.Clone(full), 0)), 1},
		"a byte more, and another": {slices.Concat(frame(1, asRequest, 0, make([]byte, maxPayload+1)), frame(3, asRequest, 0, short)), 2},
		"even stream":              {frame(2, asRequest, 0, short), 1},
		"stream used twice":        {slices.Concat(frame(5, asRequest, 0, short), frame(5, asRequest, 0, short)), 2},
		"stream that goes back":    {slices.Concat(frame(5, asRequest, 0, short), frame(3, asRequest, 0, short)), 2},
		strayData:                  {slices.Concat(frame(7, asData, 0, []byte("x")), frame(9, asRequest, 0, short)), 2},
		"response":                 {slices.Concat(frame(1, asResponse, 0, nil), frame(3, asRequest, 0, short)), 1},
		"unknown kind":             {slices.Concat(frame(1, 77, 0, []byte("x")), frame(3, asRequest, 0, short)), 1},
		"no protobuf":              {frame(1, asRequest, 0, []byte("\xff\xff\xff\xff")), 1},
		"nothing":                  {frame(1, asRequest, 0, nil), 1},
		"half a header":            {frame(1, asRequest, 0, short)[:5], 0},
		halfRequest:                {frame(1, asRequest, 0, short)[:20], 0},
	} {
		if name == strayData && v != rig.V24 || name == halfRequest && v == rig.V16 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			want := exchange(t, direct, direct.inner, tt.sent, tt.answers)
			got := exchange(t, relayed, relayed.relay, tt.sent, tt.answers)
			if !slices.Equal(want, got) {
				t.Errorf("direct:  %.300q\nrelayed: %.300q", want, got)
			}
			if len(want) != tt.answers {
				t.Errorf("the shim sends %.300q, which is not %d answers", want, tt.answers)
			}
		})
	}
}

// exchange sends bytes and returns the frames that come back, in the order of their
// text: two calls' answers race. When there are so many it hangs up, to see that no
// more come.
func exchange(t *testing.T, s *handShim, socket string, sent []byte, answers int) (frames []string) {
	t.Helper()
	conn := s.dial(socket)
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err := conn.Write(sent)
	check(t, err)
	for {
		if len(frames) == answers {
			check(t, conn.(*net.UnixConn).CloseWrite())
		}
		head := make([]byte, 10)
		if _, err := io.ReadFull(conn, head); err != nil {
			if err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
			slices.Sort(frames)
			return frames
		}
		payload := make([]byte, binary.BigEndian.Uint32(head))
		_, err := io.ReadFull(conn, payload)
		check(t, err)
		frames = append(frames, string(head)+string(payload))
	}
}
