package collate

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/names"
)

func TestCycles(t *testing.T) {
	t.Run("itself", func(t *testing.T) {
		b := newBed(t, nil)
		b.Add(spanOf("wait_process", 7, 1, 1, 10, 20))
		b.Tick()
		b.want(1, ourTrace, root)
	})
	t.Run("among those that wait", func(t *testing.T) {
		b := newBed(t, nil)
		b.Add(spanOf("x", 7, 1, 2, 10, 20))
		b.Add(spanOf("x", 7, 2, 3, 10, 20))
		b.Add(spanOf("x", 7, 3, 1, 10, 20))
		b.Ended()
		b.balance()
		b.want(1, ourTrace, 2)
		b.want(2, ourTrace, 3)
		b.want(3, ourTrace, root)
	})
	t.Run("through those sent", func(t *testing.T) {
		b := newBed(t, nil)
		b.Add(spanOf("x", 7, 1, 2, 10, 20))
		b.Add(spanOf("x", 7, 4, 1, 10, 20))
		b.pass(16 * time.Second)
		b.Add(spanOf("x", 7, 2, 4, 10, 20))
		b.Ended()
		b.want(1, ourTrace, 2)
		b.want(4, ourTrace, 1)
		b.want(2, ourTrace, root)
	})
	t.Run("with a stray", func(t *testing.T) {
		b := newBed(t, nil)
		b.Add(spanOf("create_sandbox", 7, 1, 2, 0, 100))
		b.Add(spanOf("baremount", 7, 2, 0, 10, 20))
		b.Ended()
		b.balance()
		forest(t, b)
	})
	for name, n := range map[string]uint64{"deep": 5000} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			for i := range n {
				b.Add(spanOf("x", 7, many+i, many+(i+1)%n, 10, 20))
			}
			b.Ended()
			b.balance()
			forest(t, b)
		})
	}
}

func TestIDsOfOthers(t *testing.T) {
	b := newBed(t, nil)
	b.called("Create", "a", "", 0xC1, 0, 100)
	b.Add(spanOf("sandbox start", 0xAAAA, root, 0, 10, 20))
	b.Add(spanOf("Create", 0xAAAA, 0xC1, 0, 10, 20))
	if b.drops[Collision] != 2 {
		t.Errorf("dropped %v", b.drops)
	}
	b.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	b.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	b.Add(spanOf("x", 7, 2, 3, 10, 20))
	b.Add(spanOf("x", 7, 2, 1, 10, 20))
	if b.drops[Duplicate] != 2 {
		t.Errorf("dropped %v", b.drops)
	}
	// Another sandbox's trace, and its span.
	b.Add(spanOf("x", 0xDDDD, 5, 0xD0, 10, 20))
	b.Add(spanOf("create_container", 0xDDDD, 6, 0xD0, 10, 20))
	b.Ended()
	b.balance()
	b.want(1, ourTrace, root)
	b.want(5, ourTrace, 0xD0)
	b.want(6, ourTrace, 0xC1)
	if b.get(0xD0).Name != names.LostAgentSpan {
		t.Error("the parent named is not a placeholder")
	}
}

func TestIsolatedTracesAreNotTheGuests(t *testing.T) {
	b := newBed(t, func(o *Options) { o.Isolated = true })
	b.AddTrace(traceID(8))
	b.Add(spanOf("x", 7, 2, 1, 10, 20))
	b.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	b.Add(spanOf("wait_process", 7, 3, 0, 10, 20))
	b.Add(spanOf("wait_process", 8, 4, 0, 10, 20))
	b.Add(spanOf("x", 9, 6, 5, 10, 20))
	b.Ended()
	in := trace.TraceID(b.get(1).TraceId)
	if in == traceID(7) || in == ourTrace {
		t.Errorf("the guest's trace is sent as %v", in)
	}
	b.want(2, in, 1)
	b.want(3, in, 0)
	b.want(4, traceID(8), 0)
	for _, id := range []uint64{1, 3, 4, 5} {
		if s := b.get(id); len(s.Links) != 1 || trace.SpanID(s.Links[0].SpanId) != rootSpan.SpanID() {
			t.Errorf("root %d is not linked to the sandbox's", id)
		}
	}
	other := newBed(t, func(o *Options) { o.Isolated = true })
	other.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	other.Tick()
	if in == trace.TraceID(other.get(1).TraceId) {
		t.Error("two sandboxes share a trace because their guests said so")
	}
}

func TestLinksStayWithinTheSandbox(t *testing.T) {
	b := newBed(t, nil)
	b.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	s := spanOf("wait_process", 8, 2, 0, 10, 20)
	s.AddLink(traceID(7), spanID(1))      // moved with what it links to
	s.AddLink(ourTrace, spanID(root))     // stays
	s.AddLink(traceID(0xDDDD), spanID(1)) // another sandbox's
	b.Add(s)
	b.Tick()
	got := b.get(2)
	if len(got.Links) != 2 || trace.TraceID(got.Links[0].TraceId) != ourTrace || trace.TraceID(got.Links[1].TraceId) != ourTrace || got.DroppedLinksCount != 1 {
		t.Errorf("links %v, %d dropped", got.Links, got.DroppedLinksCount)
	}
}

// forest checks that the sent spans have no cycle and no orphan.
func forest(t testing.TB, b *bed) {
	t.Helper()
	const going, done = 1, 2
	state := make(map[trace.SpanID]int)
	for _, s := range b.out {
		var path []trace.SpanID
		for at := trace.SpanID(s.SpanId); state[at] != done; {
			if state[at] == going {
				t.Fatalf("span %v is below itself", at)
			}
			state[at] = going
			path = append(path, at)
			next := parentOf(b.by[at])
			if !next.IsValid() {
				break
			}
			if _, ours := b.Knows(next); ours {
				break
			}
			if b.by[next] == nil {
				t.Fatalf("span %v is an orphan", at)
			}
			if trace.TraceID(b.by[next].TraceId) != trace.TraceID(b.by[at].TraceId) {
				t.Fatalf("span %v is in another trace than its parent", at)
			}
			at = next
		}
		for _, id := range path {
			state[id] = done
		}
	}
}

// agentNames are some known names, and some unknown ones.
var agentNames = []string{
	"create_sandbox", "create_container", "start_container", "exec_process", "signal_process", "stats_container",
	"wait_process", "root-span", "start_sandbox", "watch_uevents", "baremount", "get_current_thread_ns_path",
	"do_exec_process", "do_stats_container", "new", "process", "x", "",
}

var (
	runtimeNames   = []string{"create", "rootSpan", "ttrpc.CreateContainer", "AddEndpoints", "State"}
	runtimeMethods = []string{"Create", "", "", "", "State"}
)

// torture feeds a Collator by a program, whose bytes choose the events, and checks the
// invariants.
func torture(t testing.TB, program []byte) {
	ids := uint64(24) // few, so that they meet
	foreign := traceID(0xDDDD)
	isolated := false
	if len(program) > 0 && program[0]&1 == 1 {
		isolated = true
	}
	b := newBed(t, func(o *Options) {
		o.Isolated = isolated
		o.MaxSpans, o.MaxAwaited, o.MaxCalls, o.MaxBatch = 16, 8, 4, 3
	})
	n := uint64(0)
	for len(program) >= 6 {
		op, p := program[0], program[1:6]
		program = program[6:]
		switch {
		case op < 24:
			b.pass(time.Duration(p[0]) * 100 * time.Millisecond)
		case op < 48:
			n++
			method := []string{"Create", "Start", "Kill", "Stats", "Delete", "Wait", "StartSandbox"}[p[0]%7]
			b.called(method, string('a'+rune(p[1]%2)), []string{"", "x"}[p[2]%2], 0xC000+n, int64(p[3]), int64(p[3])+int64(p[4]))
		case op < 50:
			b.Cause(calls.Request{Method: "CreateContainer", ContainerID: "a", Caller: context(traceID(0x300+uint64(p[0]%2)), 0xE0+uint64(p[1]%8))})
		case op < 52:
			s := ofRuntime(runtimeNames[int(p[3])%len(runtimeNames)], 0x300+uint64(p[0]%2), 0xE0+uint64(p[1]%8), []uint64{0, 0xE0 + uint64(p[2]%8)}[p[2]>>4&1], int64(p[4]), int64(p[4])+int64(p[0]))
			s.Method = runtimeMethods[int(p[3])%len(runtimeMethods)]
			b.AddRuntime(s)
		case op < 54:
			b.AddTrace(traceID(0x100 + uint64(p[0]%4)))
		case op < 56:
			b.Ended()
		default:
			in := uint64(0x100 + int(p[0]%8))
			if p[0] > 240 {
				in = 0x300
			}
			if p[0] > 250 {
				in = 0xDDDD
			} else if p[0] > 245 {
				in = 0xAAAA
			}
			id := 1 + uint64(p[1])%ids
			parent := uint64(p[2]) % (ids + 1)
			switch p[2] {
			case 255:
				parent = root
			case 254:
				parent = 0xC001
			case 253:
				parent = 0xE0
			case 252:
				id = root
			case 251:
				if id = 0xC001; n == 0 || n > 4 {
					continue // nobody's id, or one forgotten
				}
			case 250:
				id = 0xE0
			}
			s := spanOf(agentNames[int(p[3])%len(agentNames)], in, id, parent, int64(p[4]), int64(p[4])+int64(int8(p[0])))
			if p[4]&1 == 0 {
				of(s, string('a'+rune(p[4]>>1&1)), []string{"", "x", "uuid"}[p[3]%3])
			}
			b.Add(s)
		}
		if s := b.Stats(); s.Held > 16 || s.Awaited > 8 || b.nodes() > 2*16 || b.orphans() > 16 {
			t.Fatalf("not bounded: %+v, %d nodes in %d trees", s, b.nodes(), b.orphans())
		}
		b.balance()
	}
	b.Ended()
	b.balance()
	if s := b.Stats(); s.Held != 0 || s.HeldBytes != 0 || s.Awaited != 0 || b.nodes() != 0 || b.orphans() != 0 || len(b.agent.waiting.undecided) != 0 {
		t.Fatalf("something remains: %+v", s)
	}
	for _, s := range b.out {
		in := trace.TraceID(s.TraceId)
		if in == foreign {
			t.Fatalf("span %x is in a trace that is not the sandbox's", s.SpanId)
		}
		if binary.BigEndian.Uint64(in[8:]) < 0x200 && !b.HasTrace(in) {
			t.Fatalf("span %x is in the guest's trace %v", s.SpanId, in)
		}
		for _, l := range s.Links {
			if trace.TraceID(l.TraceId) == foreign {
				t.Fatalf("span %x links to a trace that is not the sandbox's", s.SpanId)
			}
		}
	}
	sound(t, b)
}

// sound is forest for traces of the sandbox with spans that are not here: a parent in one of
// them may be such a span.
func sound(t testing.TB, b *bed) {
	t.Helper()
	for _, s := range b.out {
		at := s
		for steps := 0; ; steps++ {
			if steps > len(b.out) {
				t.Fatalf("span %x is below itself", s.SpanId)
			}
			parent := parentOf(at)
			next := b.above(at)
			if next == nil {
				_, ours := b.Knows(parent)
				known := ours || !parent.IsValid() || parent[6]>>2 == 0xC0>>2 || isKnown(at.Name) && b.HasTrace(trace.TraceID(at.TraceId))
				if !known {
					t.Fatalf("span %x (%s) is an orphan below %v", at.SpanId, at.Name, parent)
				}
				break
			}
			if trace.TraceID(next.TraceId) != trace.TraceID(at.TraceId) {
				t.Fatalf("span %x (%s, in %x) is in another trace than its parent %x (%s, in %x), isolated: %v", at.SpanId, at.Name, at.TraceId, next.SpanId, next.Name, next.TraceId, b.opts.Isolated)
			}
			at = next
		}
	}
}

func TestWhateverComes(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 300
	}
	seed := uint64(0)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d: %q", seed, randomProgram(seed))
		}
	})
	for ; seed < uint64(rounds); seed++ {
		torture(t, randomProgram(seed))
	}
}

func randomProgram(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	program := make([]byte, 6*(20+r.IntN(400)))
	for i := range program {
		program[i] = byte(r.Uint32())
	}
	return program
}

func FuzzCollate(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		program := make([]byte, 6*60)
		for i := range program {
			program[i] = byte(r.Uint32())
		}
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, program []byte) { torture(t, program[:min(len(program), 6*1000)]) })
}

// Reporting calls does not wait for a stuck sink.
func TestCallsDoNotWait(t *testing.T) {
	release, stuck := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b := newBed(t, func(o *Options) {
		o.Sink = func(*resourcepb.Resource, string, []byte, int) {
			once.Do(func() { close(stuck) })
			<-release
		}
	})
	b.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	done := make(chan struct{})
	go func() { b.Tick(); close(done) }()
	<-stuck
	b.called("Create", "a", "", 0xC1, 0, 100)
	b.AddTrace(traceID(9))
	close(release)
	<-done
}

func TestConcurrently(t *testing.T) {
	b := newBed(t, func(o *Options) { o.Now = time.Now; o.MaxSpans = 100 })
	c := b.Collator // the bed's time is not for several
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(2000) {
				switch g {
				case 0:
					c.Call(calls.Call{Method: "Kill", ContainerID: "a", SpanContext: context(ourTrace, 0xC0000+i), Start: time.Unix(0, t0), End: time.Unix(0, t0+ms)})
				case 1:
					b.Tick()
					b.Stats()
				default:
					c.Add(of(spanOf("signal_process", 7, many*g+i, many*g+i+1, 0, 1), "a", ""))
				}
			}
		})
	}
	wg.Wait()
	b.Ended()
	b.balance()
	if s := b.Stats(); s.Sent != 4000 {
		t.Errorf("%+v", s)
	}
}

func TestBatches(t *testing.T) {
	var sizes []int
	b := newBed(t, func(o *Options) {
		o.MaxBatch = 10
		o.Sink = func(_ *resourcepb.Resource, _ string, _ []byte, n int) { sizes = append(sizes, n) }
	})
	for i := range uint64(25) {
		b.Add(spanOf("wait_process", 7, many+i, 0, 0, 1))
	}
	b.Tick()
	b.Tick()
	if len(sizes) != 3 || sizes[0] != 10 || sizes[1] != 10 || sizes[2] != 5 {
		t.Errorf("batches of %v", sizes)
	}
}
