package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// killsEnv is the number of kills of TestKilled; TestKilledCalls has a third of it.
const killsEnv = "SHIMTRACE_KILLS"

func kills(t *testing.T) int {
	if handedOver {
		t.Skip("the relays are the same")
	}
	n, err := strconv.Atoi(os.Getenv(killsEnv))
	if err != nil {
		n = 300
		if testing.Short() || raceDetector { // which sees one process only
			n = 50
		}
	}
	return n
}

// size returns lengths of all kinds, most of them short.
func size(r *rand.Rand) int {
	switch n := r.IntN(1000); {
	case n < 800:
		return r.IntN(300)
	case n < 950:
		return r.IntN(9000)
	case n < 998:
		return r.IntN(200_000)
	}
	return r.IntN(wire.MaxPayload - 1000)
}

// talk is what one side says, frame by frame; both ends know it by the seed.
type talk struct {
	r      *rand.Rand
	stream uint32
	filler []byte
}

func newTalk(seed uint64) *talk {
	filler := make([]byte, wire.MaxPayload+100_000)
	for i, r := 0, rand.New(rand.NewPCG(seed, 7)); i < len(filler); i++ {
		filler[i] = byte(r.Uint32())
	}
	return &talk{r: rand.New(rand.NewPCG(seed, 1)), filler: filler}
}

// bytes returns some bytes of a length.
func (t *talk) bytes(n int) []byte {
	at := t.r.IntN(len(t.filler) - n + 1)
	return t.filler[at : at+n]
}

// next returns the next frame and whether it is a request that may be changed.
func (t *talk) next(typ wire.FrameType) (b []byte, changed bool) {
	t.stream += 2
	switch n := t.r.IntN(100); {
	case n < 10:
		return frame(t.stream, wire.TypeData, uint8(t.r.IntN(4)), t.bytes(size(t.r))), false
	case n < 15:
		return frame(t.stream, 77, 0xff, t.bytes(size(t.r))), false
	case n == 15 && t.r.IntN(20) == 0:
		return frame(t.stream, typ, 0, t.bytes(wire.MaxPayload+9)), false
	case typ == wire.TypeResponse:
		return answer(t.stream, &ttrpc.Response{Payload: t.bytes(size(t.r))}), false
	}
	r := &ttrpc.Request{Service: taskService, Method: "State", Payload: t.bytes(size(t.r))}
	if t.r.IntN(2) == 0 {
		r.Metadata = []*ttrpc.KeyValue{{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {Key: "k", Value: "v"}}
	}
	return request(t.stream, r), true
}

// say says n frames of a talk, in pieces and with pauses, and no more after them.
func say(c *net.UnixConn, seed uint64, typ wire.FrameType, stop <-chan struct{}) (frames int, err error) {
	talk := newTalk(seed)
	pause := rand.New(rand.NewPCG(seed, 2))
	for {
		select {
		case <-stop:
			return frames, c.CloseWrite()
		default:
		}
		b, _ := talk.next(typ)
		frames++
		for len(b) > 0 {
			n := len(b)
			if pause.IntN(3) == 0 {
				n = 1 + pause.IntN(n)
			}
			if _, err := c.Write(b[:n]); err != nil {
				return frames, err
			}
			b = b[n:]
			if pause.IntN(20) == 0 {
				time.Sleep(time.Duration(pause.IntN(500)) * time.Microsecond)
			}
		}
	}
}

// hear compares all that comes with a talk, and returns the number of frames.
func hear(c *net.UnixConn, seed uint64, typ wire.FrameType) (frames int, err error) {
	talk := newTalk(seed)
	from := bufio.NewReaderSize(c, 64<<10)
	head := make([]byte, wire.HeaderLen)
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			if err == io.EOF {
				err = nil
			}
			return frames, err
		}
		want, changed := talk.next(typ)
		h := wire.ParseHeader(head)
		got := make([]byte, h.Length)
		if _, err := io.ReadFull(from, got); err != nil {
			return frames, err
		}
		if err := same(h, got, want, changed); err != nil {
			return frames, fmt.Errorf("frame %d: %w", frames, err)
		}
		frames++
	}
}

// same compares a frame with the one that was sent, context aside.
func same(h wire.Header, got, want []byte, changed bool) error {
	sent := wire.ParseHeader(want)
	want = want[wire.HeaderLen:]
	if !changed {
		if h != sent || !bytes.Equal(got, want) {
			return fmt.Errorf("%+v became %+v, or bytes of it changed", sent, h)
		}
		return nil
	}
	var a, b ttrpc.Request
	if h.Stream != sent.Stream || h.Type != sent.Type || h.Flags != sent.Flags {
		return fmt.Errorf("%+v became %+v", sent, h)
	}
	if err := proto.Unmarshal(got, &a); err != nil {
		return err
	}
	if err := proto.Unmarshal(want, &b); err != nil {
		return err
	}
	n := 0
	for _, r := range []*ttrpc.Request{&a, &b} {
		kept := r.Metadata[:0]
		for _, kv := range r.Metadata {
			if kv.Key != "traceparent" {
				kept = append(kept, kv)
			} else if r == &a {
				n++
			}
		}
		r.Metadata = kept
	}
	if n != 1 || !proto.Equal(&a, &b) {
		return fmt.Errorf("a request of %d bytes became one of %d with %d contexts", len(want), len(got), n)
	}
	return nil
}

// TestKilled: a relay's process is killed at any moment, while requests, answers and
// other frames of all sizes pass, in both directions, in one that is left, and while
// buffers are full. Another one goes on, and nobody sees a byte of it, or an end.
func TestKilled(t *testing.T) {
	const each = 50
	for i := range max(1, kills(t)/each) {
		t.Run(strconv.Itoa(i), func(t *testing.T) { killed(t, uint64(i), each, []int{0, 4 << 10, 64 << 10}[i%3]) })
	}
}

func killed(t *testing.T, seed uint64, n, buffer int) {
	k, w := keep(t, buffer)
	type end struct {
		who    string
		frames int
		err    error
	}
	ends := make(chan end, 4)
	var stop [2]chan struct{}
	for i, side := range []struct {
		name     string
		from, to *net.UnixConn
		typ      wire.FrameType
	}{{"requests", w.client, w.server, wire.TypeRequest}, {"answers", w.server, w.client, wire.TypeResponse}} {
		stop[i] = make(chan struct{})
		go func() {
			frames, err := say(side.from, seed+uint64(i), side.typ, stop[i])
			ends <- end{side.name + " sent", frames, err}
		}()
		go func() {
			frames, err := hear(side.to, seed+uint64(i), side.typ)
			ends <- end{side.name + " arrived", frames, err}
		}()
	}
	r := rand.New(rand.NewPCG(seed, 3))
	frames := map[string]int{}
	done := func(e end) {
		if e.err != nil {
			t.Fatalf("%s: %v after %d frames", e.who, e.err, e.frames)
		}
		frames[e.who] = e.frames
	}
	for i := range n {
		switch i {
		case n / 2: // one direction ends before the other
			close(stop[seed%2])
		case n - 1:
			close(stop[1-seed%2])
		}
		select {
		case e := <-ends:
			done(e)
		case <-time.After(time.Duration(r.ExpFloat64() * float64(4*time.Millisecond))):
		}
		if k.kill() {
			break
		}
	}
	for len(frames) < 4 {
		select {
		case e := <-ends:
			done(e)
		case <-time.After(patience):
			t.Fatalf("stuck; ended are %v", frames)
		}
	}
	if frames["requests sent"] != frames["requests arrived"] || frames["answers sent"] != frames["answers arrived"] {
		t.Errorf("%v", frames)
	}
	w.client.Close()
	w.server.Close()
	select {
	case err := <-k.now.ended:
		k.now.ended <- err
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the relay does not end")
	}
	t.Log(frames)
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	net.Listener
	conns chan net.Conn
}

func (l *oneConn) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *oneConn) Close() error { return nil }

// TestKilledCalls: real calls and streams, of all sizes, while the relay is killed. Each is
// answered.
func TestKilledCalls(t *testing.T) {
	n := kills(t) / 3
	k, w := keep(t, 0)
	w.client.SetDeadline(time.Time{})
	w.server.SetDeadline(time.Time{})
	s, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	s.Register(taskService, taskMethods)
	s.RegisterService(echoService, &ttrpc.ServiceDesc{Methods: echoMethods, Streams: echoStreams})
	l := &oneConn{conns: make(chan net.Conn, 1)}
	l.conns <- w.server
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	c := ttrpc.NewClient(w.client)
	stop := make(chan struct{})
	var callers sync.WaitGroup
	var calls atomic.Int64
	for i := range 4 {
		callers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 4))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := someCall(c, r); err != nil {
					t.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 5))
	for range n {
		time.Sleep(time.Duration(r.ExpFloat64() * float64(4*time.Millisecond)))
		if k.kill() {
			t.Fatal("the relay has ended")
		}
	}
	close(stop)
	callers.Wait()
	c.Close()
	<-k.now.ended
	k.now.ended <- nil
	close(l.conns)
	s.Close()
	<-served
	t.Log(calls.Load(), "calls")
}

// someCall makes a call and reports what is wrong with the answer.
func someCall(c *ttrpc.Client, r *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	want := wrapperspb.Bytes(bytes.Repeat([]byte{byte(r.Uint32())}, 10+size(r)))
	check := func(got *wrapperspb.BytesValue, err error) error {
		if err == nil && !bytes.Equal(got.Value, want.Value) {
			err = fmt.Errorf("%d bytes became %d", len(want.Value), len(got.Value))
		}
		return err
	}
	var got wrapperspb.BytesValue
	switch r.IntN(4) {
	case 0:
		var sum wrapperspb.Int64Value
		stream, err := c.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, echoService, "Down", wrapperspb.Int64(20))
		for n := int64(0); err == nil; n++ {
			if err = stream.RecvMsg(&sum); errors.Is(err, io.EOF) && n == 20 {
				return nil
			}
			if err == nil && sum.Value != n {
				err = fmt.Errorf("message %d is %d", n, sum.Value)
			}
		}
		return fmt.Errorf("stream down: %w", err)
	case 1:
		stream, err := c.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, echoService, "Both", nil)
		for range 3 {
			if err == nil {
				err = stream.SendMsg(want)
			}
			if err == nil {
				err = check(&got, stream.RecvMsg(&got))
			}
		}
		if err == nil {
			err = stream.CloseSend()
		}
		if err == nil {
			if err = stream.RecvMsg(&got); errors.Is(err, io.EOF) {
				return nil
			}
		}
		return fmt.Errorf("stream both ways: %w", err)
	}
	if err := check(&got, c.Call(ctx, echoService, "Echo", want, &got)); err != nil {
		return fmt.Errorf("call: %w", err)
	}
	return nil
}

// TestKilledBeforeTheSpanEnds: a relay that is killed between an answer and the end of the
// span leaves the span to the next one.
func TestKilledBeforeTheSpanEnds(t *testing.T) {
	if handedOver {
		t.Skip("the relays are the same")
	}
	t.Setenv(stopsEnv, "1")
	k, w := keep(t, 0)
	send(t, w.client, request(1, &ttrpc.Request{Service: taskService, Method: "Wait"}))
	readFrame(t, w.server)
	whole := answer(1, &ttrpc.Response{})
	send(t, w.server, whole)
	read(t, w.client, whole)
	testkit.Until(t, "the relay is about to end the span", func() bool {
		return host.Proc("/proc").State(k.now.cmd.Process.Pid) == 'T'
	})
	k.kill()
	_ = k.now.control.SetReadDeadline(time.Now().Add(patience))
	spans := make([]byte, 1)
	if _, err := k.now.control.Read(spans); err != nil || spans[0] != 1 {
		t.Errorf("%d spans, %v", spans[0], err)
	}
}
