package handover

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func socketpair(tb testing.TB) (a, b *net.UnixConn) {
	tb.Helper()
	a, other, err := host.UnixPair(unix.SOCK_STREAM)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close() })
	if b, err = host.UnixConn(other); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	return a, b
}

// relayed is a stream between two connections whose outer ends are a test's.
type relayed struct {
	*Stream
	memory   *Memory
	in, out  *net.UnixConn
	from, to *net.UnixConn
}

func newRelayed(tb testing.TB) *relayed {
	tb.Helper()
	m, err := New()
	if err != nil {
		tb.Fatal(err)
	}
	r := &relayed{memory: m}
	r.in, r.from = socketpair(tb)
	r.to, r.out = socketpair(tb)
	r.use(tb)
	tb.Cleanup(func() { r.memory.Close() })
	return r
}

func (r *relayed) use(tb testing.TB) {
	tb.Helper()
	var err error
	if r.Stream, err = r.memory.Stream(Requests, r.from, r.to); err != nil {
		tb.Fatal(err)
	}
}

// reopen goes on with the memory as another process would.
func (r *relayed) reopen(tb testing.TB) {
	tb.Helper()
	fd, err := unix.FcntlInt(r.memory.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	r.memory.Close()
	if r.memory, err = Open(os.NewFile(uintptr(fd), "memory")); err != nil {
		tb.Fatal(err)
	}
	r.use(tb)
}

// TestLateRead: what has come is read also after the deadline, which says nothing if the
// process had no processor meanwhile.
func TestLateRead(t *testing.T) {
	r := newRelayed(t)
	if _, err := r.in.Write([]byte("in time")); err != nil {
		t.Fatal(err)
	}
	kept, err := Receive(r.from, r.memory, func() {})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.from.SetReadDeadline(time.Unix(1, 0))
	if got, err := kept.Stream().Next(); err != nil || string(got) != "in time" {
		t.Errorf("%q, %v", got, err)
	}
	kept.Stream().Discard(len("in time"), Mark{})
	if got, err := kept.Stream().Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing is there, but %q, %v", got, err)
	}
}

// TestReopen: what was read and not taken is there, wherever the one before stopped.
func TestReopen(t *testing.T) {
	r := newRelayed(t)
	if _, err := r.in.Write([]byte("onetwothree")); err != nil {
		t.Fatal(err)
	}
	if b, err := r.Peek(3); err != nil || string(b) != "one" {
		t.Fatalf("%q, %v", b, err)
	}
	if err := r.Write(3, append(r.Free(nil), "1:"...), r.Buffered()[:3]); err != nil {
		t.Fatal(err)
	}
	r.reopen(t)
	if r.Unfinished() != 3 || string(r.Buffered()) != "onetwothree" {
		t.Fatalf("%d unfinished of %q", r.Unfinished(), r.Buffered())
	}
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	mark := Mark{Left: 5, Have: 2, Head: [12]byte{1, 2}}
	r.Discard(3, mark)
	r.reopen(t)
	if r.Unfinished() != 0 || string(r.Buffered()) != "twothree" || r.Mark() != mark || r.Position() != 3 {
		t.Fatalf("%d unfinished of %q at %d, %+v", r.Unfinished(), r.Buffered(), r.Position(), r.Mark())
	}
	got := make([]byte, 100)
	if n, err := r.out.Read(got); err != nil || string(got[:n]) != "1:one" {
		t.Errorf("written is %q, %v", got[:n], err)
	}
}

// TestPartialWrite: what the system takes in parts arrives once, whoever writes it, also
// when there are more parts than are kept where they lie.
func TestPartialWrite(t *testing.T) {
	for name, parts := range map[string]int{"one part": 1, "parts": maxParts, "more parts": maxParts + 9} {
		t.Run(name, func(t *testing.T) {
			r := newRelayed(t)
			_ = r.to.SetWriteBuffer(4 << 10)
			in := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
			go func() {
				_, _ = r.in.Write(in)
			}()
			if _, err := r.Peek(len(in)); err != nil {
				t.Fatal(err)
			}
			var list [][]byte
			for rest := r.Buffered(); len(rest) > 0; {
				n := min(len(rest), len(in)/parts+1)
				list, rest = append(list, rest[:n]), rest[n:]
			}
			got := make(chan []byte, 1)
			go func() {
				for r.Position() == 0 && r.memory.header().streams[Requests].step().write.done() == 0 {
					time.Sleep(time.Millisecond)
				}
				r.Stop()
			}()
			if err := r.Write(len(in), list...); !errors.Is(err, ErrStopped) {
				t.Fatalf("stopped with %v", err)
			}
			r.reopen(t)
			go func() {
				b, _ := io.ReadAll(r.out)
				got <- b
			}()
			if err := r.Finish(); err != nil {
				t.Fatal(err)
			}
			r.Discard(r.Unfinished(), Mark{})
			r.to.Close()
			if b := <-got; !bytes.Equal(b, in) {
				t.Errorf("%d bytes became %d", len(in), len(b))
			}
		})
	}
}

// TestErrorIsLast: the system tells of an error before it gives what was said before, and
// once only. It is told as read(2) would.
func TestErrorIsLast(t *testing.T) {
	r := newRelayed(t)
	if _, err := r.from.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.in.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	r.in.Close()
	b, err := r.Next()
	if err != nil || string(b) != "last words" {
		t.Fatalf("%q, %v", b, err)
	}
	r.Discard(len(b), Mark{})
	for range 2 {
		if b, err := r.Next(); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
			t.Errorf("%q, %v, want a reset", b, err)
		}
		r.reopen(t) // who goes on is told as well
	}
}

func TestEOF(t *testing.T) {
	r := newRelayed(t)
	_ = r.in.CloseWrite()
	for range 2 {
		if b, err := r.Next(); err != io.EOF || len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestPositionsWrap: a connection may carry more than 4 GiB.
func TestPositionsWrap(t *testing.T) {
	r := newRelayed(t)
	account := &r.memory.header().streams[Requests]
	account.steps[0].at, account.origin = math.MaxUint32-1000, math.MaxUint32-1000
	account.read.begin(math.MaxUint32 - 1000)
	r.reopen(t)
	in := bytes.Repeat([]byte("0123456789"), 1000)
	go func() {
		_, _ = r.in.Write(in)
		_ = r.in.CloseWrite()
	}()
	var got []byte
	for i := 0; ; i++ {
		b, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n := min(len(b), 300)
		got = append(got, b[:n]...)
		r.Discard(n, Mark{})
		if i%7 == 0 {
			r.reopen(t)
		}
	}
	if !bytes.Equal(got, in) || r.Position() != math.MaxUint32-1000+uint64(len(in)) {
		t.Errorf("%d bytes became %d, at %d", len(in), len(got), r.Position())
	}
}

// TestMoves: frames that do not fit behind others are moved, and are whole.
func TestMoves(t *testing.T) {
	r := newRelayed(t)
	var in []byte
	for i := range 40 {
		in = append(in, bytes.Repeat([]byte{byte(i)}, 10_000)...)
	}
	go func() { _, _ = r.in.Write(in) }()
	for i := range 40 {
		b, err := r.Peek(10_000)
		if err != nil || !bytes.Equal(b, in[i*10_000:][:10_000]) {
			t.Fatalf("frame %d: %d bytes, %v", i, len(b), err)
		}
		r.Discard(10_000, Mark{})
		if i%9 == 0 {
			r.reopen(t)
		}
	}
	if r.shared.used > 2*largeBuffer && r.shared.used < bufferSize {
		t.Errorf("%d bytes of buffer for frames of 10000", r.shared.used)
	}
}

// pages returns the bytes of memory that a file has.
func pages(tb testing.TB, f *os.File) int64 {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		tb.Fatal(err)
	}
	return st.Blocks * 512
}

// TestPagesComeAndGo: an idle connection has a page for each direction and one for the
// account, whatever has passed.
func TestPagesComeAndGo(t *testing.T) {
	r := newRelayed(t)
	idle := func(after string, want int64) {
		t.Helper()
		if got := pages(t, r.memory.File()); got > want {
			t.Errorf("%s: %d bytes, want at most %d", after, got, want)
		}
	}
	idle("at first", pageSize)
	if all, missed := r.memory.Calls().All(); len(all) != 0 || missed != 0 {
		t.Errorf("%d calls and %d missed in a new memory", len(all), missed)
	}
	idle("nothing taken over", pageSize)
	in := make([]byte, maxPeek)
	go func() { _, _ = r.in.Write(in) }()
	if _, err := r.Peek(maxPeek); err != nil {
		t.Fatal(err)
	}
	if got := pages(t, r.memory.File()); got < maxPeek {
		t.Errorf("%d bytes lie in %d", maxPeek, got)
	}
	r.Discard(maxPeek, Mark{})
	peeked := make(chan error, 1)
	go func() {
		_, err := r.Peek(1)
		peeked <- err
	}()
	testkit.Until(t, "the pages of a large frame are given back", func() bool { return pages(t, r.memory.File()) <= 2*pageSize })
	if _, err := r.in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-peeked; err != nil {
		t.Fatal(err)
	}
	idle("after a large frame", 2*pageSize)
}

// TestStop: a stream stops wherever it is, and goes on.
func TestStop(t *testing.T) {
	r := newRelayed(t)
	go func() {
		time.Sleep(10 * time.Millisecond)
		r.Stop()
	}()
	if _, err := r.Next(); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped with %v", err)
	}
	r.reopen(t)
	if _, err := r.in.Write([]byte("on")); err != nil {
		t.Fatal(err)
	}
	if b, err := r.Next(); err != nil || string(b) != "on" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestProgress(t *testing.T) {
	r := newRelayed(t)
	fd := int(r.memory.File().Fd())
	last, err := Progress(fd)
	if err != nil {
		t.Fatal(err)
	}
	moved := func(what string, want bool) {
		t.Helper()
		now, err := Progress(fd)
		if err != nil || (now != last) != want {
			t.Errorf("%s: from %d to %d, %v", what, last, now, err)
		}
		last = now
	}
	moved("nothing", false)
	_, _ = r.in.Write([]byte("some"))
	moved("bytes are waiting", false)
	_, _ = r.Peek(4)
	moved("read", true)
	if err := r.Write(4, r.Buffered()); err != nil {
		t.Fatal(err)
	}
	moved("written", true)
	r.Discard(4, Mark{})
	moved("taken", true)
	if _, err := Progress(-1); err == nil {
		t.Error("of no descriptor")
	}
}

// TestOpenRefuses: what is not as this package leaves it is refused, and it is said why.
func TestOpenRefuses(t *testing.T) {
	account := func(h *header) *step { return h.streams[1].step() }
	for want, spoil := range map[string]func(h *header){
		"it is none":                    func(h *header) { h.magic[0]++ },
		"version 2, this program knows": func(h *header) { h.version = 2 },
		"26":                            func(h *header) { h.size++ },
		"no step 2":                     func(h *header) { h.streams[0].current = 2 },
		"5 bytes behind 18446744073709": func(h *header) { h.streams[1].read.begin(5); h.streams[1].origin = 7 },
		"4294967295 bytes behind 0 do":  func(h *header) { h.streams[1].read.begin(math.MaxUint32) },
		"writes for 9 bytes of 5":       func(h *header) { h.streams[1].read.begin(5); account(h).bytes = 9 },
		"writes 17 parts":               func(h *header) { account(h).parts = maxParts + 1 },
		"writes 2 bytes at 4294967295":  func(h *header) { account(h).parts = 1; account(h).part[0] = part{math.MaxUint32, 2} },
		"writes 13107200 bytes at 1":    func(h *header) { account(h).parts = 1; account(h).part[0] = part{1, bufferSize} },
		"writes 26214400 bytes": func(h *header) {
			account(h).parts = 2
			account(h).part[0].len, account(h).part[1].len = bufferSize, bufferSize
		},
		"3 of 2 bytes are written": func(h *header) { account(h).parts = 1; account(h).part[0].len = 2; account(h).write.begin(3) },
		"13 bytes of a header":     func(h *header) { account(h).mark.Have = 13 },
	} {
		m, err := New()
		if err != nil {
			t.Fatal(err)
		}
		spoil(m.header())
		fd, err := unix.FcntlInt(m.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
		if m, err := Open(os.NewFile(uintptr(fd), "memory")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("refused because %v, want %q", err, want)
			if err == nil {
				m.Close()
			}
		}
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f); err == nil {
		t.Error("a file of a disk is opened")
	}
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(os.NewFile(uintptr(fd), "x")); err == nil || !strings.Contains(err.Error(), "size can change") {
		t.Errorf("refused because %v", err)
	}
}

// FuzzOpen: whatever lies in a memory, what is opened stays within it, and ends.
func FuzzOpen(f *testing.F) {
	m, err := New()
	if err != nil {
		f.Fatal(err)
	}
	a := m.header()
	a.streams[0].read.begin(900)
	now := a.streams[0].step()
	now.bytes, now.parts, now.part[0], now.part[1] = 20, 2, part{5, 20}, part{1 << 20, 3}
	now.write.begin(7)
	now.write.control, now.write.controlLen, now.write.nameLen = 1, 1, 1 // which the kernel would follow
	m.Calls().Put(Call{Stream: 3, Service: "s", Method: "m", ContainerID: "box", Bundle: "/b"})
	f.Add(bytes.Clone(m.mem[:bufferOffset][:callsOffset+2*callSize]))
	m.Close()
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := create(int64(memorySize))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(in[:min(len(in), bufferOffset)], 0); err != nil {
			t.Fatal(err)
		}
		m, err := Open(file)
		if err != nil {
			return
		}
		defer m.Close()
		_, _ = m.Calls().All()
		_, _ = Progress(int(m.File().Fd()))
		for d := range Answers + 1 {
			opened(t, m, d)
		}
	})
}

// opened goes on with a stream.
func opened(t *testing.T, m *Memory, d Direction) {
	in, from := socketpair(t)
	to, out := socketpair(t)
	s, err := m.Stream(d, from, to)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, out)
		heard <- n
	}()
	if n := s.Unfinished(); n > len(s.Buffered()) {
		t.Fatalf("%d of %d bytes are written", n, len(s.Buffered()))
	} else if n > 0 {
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		s.Discard(n, Mark{})
	}
	_, _ = in.Write([]byte("more"))
	in.Close()
	for {
		b, err := s.Next()
		if len(b) > 0 {
			if err := s.Write(len(b), b); err != nil {
				t.Fatal(err)
			}
			s.Discard(len(b), Mark{})
		}
		if err != nil {
			break
		}
	}
	to.Close()
	<-heard
}

// TestLayout: other versions, and the kernel, rely on it.
func TestLayout(t *testing.T) {
	for what, v := range map[string][2]uintptr{
		"message": {unsafe.Sizeof(message{}), 64},
		"vector":  {unsafe.Sizeof(vector{}), 16},
		"step":    {unsafe.Sizeof(step{}), 232},
		"stream":  {unsafe.Sizeof(stream{}), 816},
		"header":  {unsafe.Sizeof(header{}), 1664},
		"call":    {unsafe.Sizeof(callEntry{}), 400},
		"calls":   {uintptr(callsOffset), 1792},
		"buffers": {uintptr(bufferOffset), 53248},
		"all":     {uintptr(memorySize), 53248 + 2*13107200},
	} {
		if v[0] != v[1] {
			t.Errorf("%s: %d, want %d; a change needs another version", what, v[0], v[1])
		}
	}
}

// TestCalls: what is put in is there for another process until it is removed.
func TestCalls(t *testing.T) {
	r := newRelayed(t)
	full := Call{
		Stream: 7, At: 5, Start: 1, Deadline: 2, Streaming: true, Signal: 9,
		Span: SpanContext{[16]byte{1}, [8]byte{2}, true}, Caller: SpanContext{[16]byte{3}, [8]byte{4}, false},
		Link: SpanContext{[16]byte{5}, [8]byte{6}, true}, ParentID: [8]byte{7},
		Service: "containerd.task.v3.Task", Method: "Create", ContainerID: strings.Repeat("a", 64), ExecID: "e", SandboxID: "s",
		Bundle: "/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + strings.Repeat("a", 64),
	}
	calls := r.memory.Calls()
	calls.Put(full)
	calls.Put(Call{Stream: 0, Service: "s", Method: "m"})
	calls.Put(Call{Stream: 9, Service: "s", Method: "m", ContainerID: strings.Repeat("long", 99), ExecID: "e"})
	calls.Put(Call{Stream: 11, Service: strings.Repeat("long", 99), Method: "m"})
	calls.Remove(0)
	calls.Put(Call{Stream: 13, Service: "s", Method: "m"})
	r.reopen(t)
	calls = r.memory.Calls()
	all, missed := calls.All()
	want := []Call{full, {Stream: 13, Service: "s", Method: "m"}, {Stream: 9, Service: "s", Method: "m", ExecID: "e"}}
	if !slices.Equal(all, want) || missed != 1 {
		t.Errorf("%d missed of %+v\nwant %+v", missed, all, want)
	}
	calls.Remove(9)
	for i := range uint32(2 * maxCalls) {
		calls.Put(Call{Stream: 100 + i, Service: "s", Method: "m"})
	}
	for i := range uint32(2 * maxCalls) {
		if i%2 == 1 {
			calls.Remove(100 + i)
		}
	}
	r.reopen(t)
	all, missed = r.memory.Calls().All()
	if want := 2 + (maxCalls-2)/2; len(all) != want || int(missed) != maxCalls+2-want {
		t.Errorf("%d calls, %d missed, want %d and %d", len(all), missed, want, maxCalls+2-want)
	}
}
