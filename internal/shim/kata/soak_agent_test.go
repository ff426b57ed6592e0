package kata

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// serveVMM is the VMM, and behind it the agent.
func (s *soak) serveVMM() {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := s.vmm.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { s.serveConn(conn.(*net.UnixConn)) })
	}
}

// serveConn is the server's side of one connection.
func (s *soak) serveConn(conn *net.UnixConn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(soakPatience))
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasSuffix(line, " 1024\n") {
		s.t.Errorf("the VMM is told %q, %v", line, err)
		return
	}
	if rand.IntN(3) == 0 { // no agent listens yet
		s.attempts.Add(1)
		return
	}
	if _, err := fmt.Fprintf(conn, "OK %d\n", 1<<30); err != nil {
		s.t.Errorf("the VMM cannot agree: %v", err)
		return
	}
	first, err := readSoakFrame(in)
	if err != nil || len(first.payload) != 8 {
		s.t.Errorf("the first frame is %+v, %v", first.h, err)
		return
	}
	number := binary.BigEndian.Uint64(first.payload)
	v, ok := s.conns.Load(number)
	if !ok {
		s.t.Errorf("talk %d arrived, which is not under way", number)
		return
	}
	k := v.(*talk)
	defer close(k.served)
	k.mu.Lock()
	k.heard = 1
	k.mu.Unlock()
	a := &agentSide{soak: s, talk: k, conn: conn, maker: &maker{Rand: rand.New(rand.NewPCG(number, 1))}}
	a.wake = sync.NewCond(&a.queue)
	var writing sync.WaitGroup
	writing.Go(a.write)
	err = a.read(in)
	a.stop()
	writing.Wait()
	if err != nil {
		s.t.Errorf("talk %d, end %d: %v", number, k.end, err)
	}
}

// agentSide hears and answers one conversation.
type agentSide struct {
	*soak
	*talk
	*maker
	conn *net.UnixConn

	queue   sync.Mutex
	wake    *sync.Cond
	streams []uint32 // to be answered
	over    bool
}

// read judges what arrives, to the end.
func (a *agentSide) read(in *bufio.Reader) error {
	left := -1
	if a.end == serverKilled {
		left = a.frames / 2
	}
	for n := 1; ; n++ {
		if left >= 0 && n > left {
			a.conn.Close() // with what it has not read
			return nil
		}
		got, err := readSoakFrame(in)
		var part errPart
		// Of a client that is killed with answers unread the kernel says so, behind all
		// that it had sent.
		reset := a.end == clientKilled && errors.Is(err, syscall.ECONNRESET)
		if errors.As(err, &part) || errors.Is(err, io.EOF) || reset {
			a.mu.Lock()
			defer a.mu.Unlock()
			if string(part) != string(a.partial) {
				return fmt.Errorf("at the end %d bytes of a frame, want %d", len(part), len(a.partial))
			}
			return nil
		}
		if err != nil {
			return err
		}
		a.mu.Lock()
		if n >= len(a.asked) {
			a.mu.Unlock()
			return fmt.Errorf("frame %d, %+v, has not been sent", n, got.h)
		}
		sent := a.asked[n]
		a.heard = n + 1
		a.mu.Unlock()
		span, err := judge(sent, got, a.trace)
		if err != nil {
			return fmt.Errorf("frame %d: %w", n, err)
		}
		if _, again := a.spans.LoadOrStore(span, true); again && span != "" {
			return fmt.Errorf("frame %d: span %s was in another one", n, span)
		}
		a.queue.Lock()
		a.streams = append(a.streams, got.h.Stream)
		a.wake.Signal()
		a.queue.Unlock()
	}
}

// stop has the writer answer what there is, and end.
func (a *agentSide) stop() {
	a.queue.Lock()
	a.over = true
	a.wake.Signal()
	a.queue.Unlock()
}

// write answers in any order.
func (a *agentSide) write() {
	most := -1
	if a.end == serverHalf {
		most = a.IntN(a.frames + 1)
	}
	for n := 0; ; n++ {
		a.queue.Lock()
		for len(a.streams) == 0 && !a.over {
			a.wake.Wait()
		}
		if len(a.streams) == 0 || n == most {
			a.queue.Unlock()
			break
		}
		at := a.IntN(len(a.streams))
		stream := a.streams[at]
		a.streams = append(a.streams[:at], a.streams[at+1:]...)
		a.queue.Unlock()
		for _, piece := range a.pieces(a.answer(stream)) {
			n, err := a.conn.Write(piece)
			a.bytes.Add(int64(n))
			a.mu.Lock()
			a.answered.Write(piece[:n])
			a.mu.Unlock()
			if err != nil {
				if a.end == clientHalf || a.end == serverHalf {
					a.t.Errorf("talk %d, end %d: the answer cannot be written: %v", a.number, a.end, err)
				}
				return
			}
		}
	}
	if err := a.conn.CloseWrite(); err != nil && a.end != serverKilled && a.end != clientKilled {
		a.t.Errorf("talk %d: %v", a.number, err)
	}
}

// errPart is what arrived of a frame that did not arrive whole.
type errPart []byte

func (e errPart) Error() string { return fmt.Sprintf("%d bytes of a frame", len(e)) }

func readSoakFrame(in *bufio.Reader) (frame, error) {
	head := make([]byte, wire.HeaderLen)
	n, err := io.ReadFull(in, head)
	if n > 0 && err != nil {
		return frame{}, errPart(head[:n])
	}
	if err != nil {
		return frame{}, err
	}
	f := frame{h: wire.ParseHeader(head)}
	f.payload = make([]byte, f.h.Length)
	n, err = io.ReadFull(in, f.payload)
	if err != nil {
		return frame{}, errPart(append(head, f.payload[:n]...))
	}
	return f, nil
}
