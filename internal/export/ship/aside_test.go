package ship

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// area is the part of docs/reliability.md that this package's tests write.
const area = "Collectors"

// recordOf appends one record of a sandbox's spans.
func recordOf(t *testing.T, j *journal.Journal, sandbox string, names ...string) {
	t.Helper()
	ss := &tracepb.ScopeSpans{}
	for _, n := range names {
		ss.Spans = append(ss.Spans, &tracepb.Span{Name: n})
	}
	id := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sandbox}}
	rs := &tracepb.ResourceSpans{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "container.sandbox.id", Value: id}}},
		ScopeSpans: []*tracepb.ScopeSpans{ss},
	}
	if err := journaltest.Append(j, []*tracepb.ResourceSpans{rs}); err != nil {
		t.Fatal(err)
	}
}

// named returns n names with a common prefix.
func named(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%04d", prefix, i))
	}
	return names
}

func has(prefix string) func(string) bool {
	return func(name string) bool { return strings.HasPrefix(name, prefix) }
}

var (
	errRefused = &RejectedError{Reason: losses.CollectorRefused, Spans: AllSpans, Err: errors.New("400")}
	errDoubt   = &RejectedError{Reason: losses.CollectorTooLarge, Spans: AllSpans, Tries: 4, Err: errors.New("500")}
)

// on fails uploads that have a span of this name with an error.
func on(prefix string, err error) func([]string) error {
	return func(names []string) error {
		if slices.ContainsFunc(names, has(prefix)) {
			return err
		}
		return nil
	}
}

func (b *backend) answers(f func([]string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = f
}

func (b *backend) tried() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.uploads
}

// arrived reports whether the backend has every one of the names.
func (b *backend) arrived(names ...string) bool {
	have := make(map[string]bool)
	for _, n := range b.taken() {
		have[n] = true
	}
	return !slices.ContainsFunc(names, func(n string) bool { return !have[n] })
}

// TestRefusedSpansCostOthersNothing has twenty bad spans among five thousand.
func TestRefusedSpansCostOthersNothing(t *testing.T) {
	j := openJournal(t, journal.Options{})
	var good []string
	for s := range 50 {
		names := named(fmt.Sprintf("good%d-", s), 100)
		if s%5 == 0 {
			names[13], names[77] = fmt.Sprintf("bad%da", s), fmt.Sprintf("bad%db", s)
		}
		recordOf(t, j, fmt.Sprint("sandbox", s), names...)
		good = append(good, slices.DeleteFunc(names, has("bad"))...)
	}
	b := &backend{answer: on("bad", errRefused)}
	s := fast(j, b)
	s.Once = true
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := drops(t, j.Dir()); len(d) != 1 || d["collector_refused"] != 20 {
		t.Errorf("drops %v, want 20 refused", d)
	}
	if !b.arrived(good...) || len(b.taken()) != len(good) {
		t.Errorf("taken %d of %d", len(b.taken()), len(good))
	}
	reliability.Row(t, reliability.Fault{Area: area,
		Fault: "the collector refuses 20 of 5,000 spans of 50 sandboxes, and with each the upload that it is in",
		Pod:   "nothing", Lost: "these 20, as refused"})
}

// TestFailingSpansHoldUpNothing: a backend fails on one sandbox's spans without saying
// why.
func TestFailingSpansHoldUpNothing(t *testing.T) {
	never := &RejectedError{Reason: losses.CollectorTooLarge, Spans: AllSpans, Tries: 1 << 30, Err: errors.New("500")}
	for what, answer := range map[string]error{"answers": never, "breaks off": errors.New("connection reset")} {
		t.Run(what, func(t *testing.T) {
			j := openJournal(t, journal.Options{SegmentBytes: 8 << 10})
			b := &backend{answer: on("bad", answer)}
			s := fast(j, b)
			s.BatchBytes = 2 << 10
			// The failing spans are tried again, last, after the others have arrived.
			s.MinBackoff, s.MaxBackoff = 50*time.Millisecond, time.Hour
			var mu sync.Mutex
			var status Status
			s.Progress = func(st Status) { mu.Lock(); defer mu.Unlock(); status = st }
			recordOf(t, j, "first", "good")
			recordOf(t, j, "bad", named("bad", 30)...)
			var want []string
			for i := range 40 {
				names := named(fmt.Sprint("good", i, "-"), 10)
				recordOf(t, j, fmt.Sprint("sandbox", i), names...)
				want = append(want, names...)
			}
			stop := start(t, s)
			eventually(t, "others' spans arrive", func() bool { return b.arrived(want...) })
			if d := drops(t, j.Dir()); len(d) > 0 {
				t.Errorf("drops %v", d)
			}
			eventually(t, "what fails is set aside", func() bool { mu.Lock(); defer mu.Unlock(); return status.Aside == 30 })
			if err := stop(); err == nil || !strings.Contains(err.Error(), "30 spans set aside") {
				t.Errorf("Run: %v", err)
			}
			b.answers(nil)
			again := fast(j, b)
			again.Once = true
			if err := again.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := drops(t, j.Dir()); len(d) > 0 || !b.arrived(named("bad", 30)...) {
				t.Errorf("set aside and read again by the next one: drops %v, taken %d", d, len(b.taken()))
			}
		})
	}
	reliability.Row(t, reliability.Fault{Area: area,
		Fault: "the collector fails on one sandbox's spans, with an answer or without; the shipper ends meanwhile",
		Pod:   "nothing", Lost: "nothing: others' spans arrive at once, these with the next shipper if the collector takes them then"})
}

// TestFailureCountsOnlyBesideSuccess: spans that fail while others are taken are given
// up, and none as long as nothing is taken.
func TestFailureCountsOnlyBesideSuccess(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &backend{answer: on("", errDoubt)}
	stop := start(t, fast(j, b))
	want := named("good", 20)
	for i, n := range want {
		recordOf(t, j, fmt.Sprint("sandbox", i), n)
	}
	recordOf(t, j, "bad", "bad")
	eventually(t, "many attempts", func() bool { return b.tried() > 100 })
	if d := drops(t, j.Dir()); len(d) > 0 {
		t.Fatalf("nothing was taken and spans are lost: %v", d)
	}
	b.answers(on("bad", errDoubt))
	eventually(t, "the others arrive", func() bool { return b.arrived(want...) })
	eventually(t, "the bad one is given up", func() bool {
		recordOf(t, j, "other", "other")
		time.Sleep(5 * time.Millisecond)
		return drops(t, j.Dir())["collector_too_large"] > 0
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := drops(t, j.Dir()); d["collector_too_large"] != 1 || len(d) != 1 {
		t.Errorf("drops %v", d)
	}
	reliability.Row(t, reliability.Fault{Area: area,
		Fault: "the collector fails on one span for ever, and takes others",
		Pod:   "nothing", Lost: "this span, when it has failed often enough while others were taken"})
}

// TestAttemptsAreBounded counts uploads to a backend that fails for all, with several
// uploads set aside.
func TestAttemptsAreBounded(t *testing.T) {
	j := openJournal(t, journal.Options{SegmentBytes: 4 << 10})
	for i := range 200 {
		recordOf(t, j, fmt.Sprint("sandbox", i%10), named("span", 10)...)
	}
	for _, answer := range []error{errDoubt, errors.New("reset"), &AwayError{errors.New("refused")}, &BusyError{After: -time.Hour, Err: errors.New("busy")}, &BusyError{Err: errors.New("busy")}} {
		b := &backend{answer: on("", answer)}
		s := fast(j, b)
		s.BatchBytes = 1 << 10
		s.MinBackoff, s.MaxBackoff = 40*time.Millisecond, 40*time.Millisecond
		began := time.Now()
		stop := start(t, s)
		eventually(t, "attempts", func() bool { return b.tried() > 10 })
		if err := stop(); err == nil {
			t.Errorf("%v: no error", answer)
		}
		// Half of a pause is random; two run at a time, and each once immediately.
		most := 2*int(time.Since(began)/(20*time.Millisecond)) + 4
		if n := b.tried(); n > most {
			t.Errorf("%v: %d attempts in %v, want at most %d", answer, n, time.Since(began), most)
		}
	}
	if d := drops(t, j.Dir()); len(d) > 0 {
		t.Errorf("drops %v", d)
	}
}

// TestAloneItIsTriedInParts has no other spans to prove which are to blame.
func TestAloneItIsTriedInParts(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &backend{answer: on("bad", errDoubt)}
	stop := start(t, fast(j, b))
	recordOf(t, j, "sandbox", append(named("good", 60), "bad")...)
	eventually(t, "the good ones arrive", func() bool { return b.arrived(named("good", 60)...) })
	_ = stop()
	if d := drops(t, j.Dir()); d["collector_too_large"] > 1 {
		t.Errorf("drops %v", d)
	}
}

// TestHangingUploadHoldsUpNothing has a backend that never answers for some spans.
func TestHangingUploadHoldsUpNothing(t *testing.T) {
	j := openJournal(t, journal.Options{})
	release := make(chan struct{})
	b := &hangs{backend: &backend{}, on: "bad", release: release, entered: make(chan struct{}, 100)}
	s := fast(j, nil)
	s.Client = b
	recordOf(t, j, "bad", "bad")
	stop := start(t, s)
	for range patience { // the front's attempts, each over its time
		<-b.entered
		release <- struct{}{}
	}
	<-b.entered // beside the rest, and hanging
	for i := range 20 {
		recordOf(t, j, "good", fmt.Sprint("good", i))
		eventually(t, "it arrives", func() bool { return b.arrived(fmt.Sprint("good", i)) })
	}
	close(release)
	_ = stop()
}

// TestPausesAreKept: a backend asks for a pause for what is set aside, and takes all
// else meanwhile.
func TestPausesAreKept(t *testing.T) {
	j := openJournal(t, journal.Options{})
	var bad atomic.Int32
	b := &backend{answer: func(names []string) error {
		if !slices.ContainsFunc(names, has("bad")) {
			return nil
		}
		if bad.Add(1) == 1 {
			return errDoubt
		}
		return &BusyError{After: time.Hour, Err: errors.New("429")}
	}}
	recordOf(t, j, "bad", "bad")
	stop := start(t, fast(j, b))
	eventually(t, "the pause is asked for", func() bool { return bad.Load() == 2 })
	for i := range 50 {
		name := fmt.Sprint("good", i)
		recordOf(t, j, "good", name)
		eventually(t, "it arrives", func() bool { return b.arrived(name) })
	}
	_ = stop()
	if n := bad.Load(); n != 2 {
		t.Errorf("asked %d times within the pause", n)
	}
}

// TestEvictedIsCountedOnce: the journal's cap removes what is set aside.
func TestEvictedIsCountedOnce(t *testing.T) {
	const limit = 16 << 10
	j := openJournal(t, journal.Options{SegmentBytes: 4 << 10, MaxBytes: limit, Shipped: true})
	b := &backend{answer: on("bad", errDoubt)}
	s := fast(j, b)
	s.MinBackoff, s.MaxBackoff = time.Hour, time.Hour
	recordOf(t, j, "bad", named("bad", 7)...)
	stop := start(t, s)
	eventually(t, "it is set aside", func() bool {
		c, err := journal.ReadCursor(j.Dir(), "")
		return err == nil && len(c.Aside) == 1
	})
	for i := range 2000 {
		name := fmt.Sprint("good", i)
		recordOf(t, j, "good", name)
		if i%50 == 0 {
			eventually(t, "it arrives", func() bool { return b.arrived(name) })
		}
		if drops(t, j.Dir())["journal_full"] > 0 {
			break
		}
	}
	_ = stop()
	if d := drops(t, j.Dir()); !maps.Equal(d, map[string]int{"journal_full": 7}) {
		t.Fatalf("drops %v", d)
	}
	s = fast(j, b)
	s.Once = true
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if d := drops(t, j.Dir()); !maps.Equal(d, map[string]int{"journal_full": 7}) {
		t.Errorf("counted again: %v", d)
	}
	reliability.Row(t, reliability.Fault{Area: area,
		Fault: "the journal's cap removes spans that the collector fails on",
		Pod:   "nothing", Lost: "these, counted once, as `journal_full`"})
}

// TestTakenWithAWarning: nothing is lost, and the backend's warning is reported.
func TestTakenWithAWarning(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, "a", "b")
	b := &backend{answer: func([]string) error { return &TakenError{"deprecated"} }}
	s := fast(j, b)
	s.Once = true
	var last Status
	s.Progress = func(st Status) { last = st }
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if last.Shipped != 2 || last.Err != nil || last.Notice == nil || last.Notice.Error() != "deprecated" || b.tried() != 1 || len(drops(t, j.Dir())) > 0 {
		t.Errorf("%+v, %d uploads, drops %v", last, b.tried(), drops(t, j.Dir()))
	}
}

// TestManyBadSandboxes sets far more aside than there is room for.
func TestManyBadSandboxes(t *testing.T) {
	for _, answer := range []*RejectedError{errRefused, errDoubt} {
		what := answer.Reason.String()
		t.Run(what, func(t *testing.T) {
			j := openJournal(t, journal.Options{})
			var want []string
			for i := range 3 * maxAside {
				recordOf(t, j, fmt.Sprint("bad", i), "bad")
				if i%10 == 0 {
					name := fmt.Sprint("good", i)
					recordOf(t, j, name, name)
					want = append(want, name)
				}
			}
			b := &backend{answer: on("bad", answer)}
			s := fast(j, b)
			s.Once, s.BatchBytes = true, 200
			var left int
			s.Progress = func(st Status) { left = st.Aside }
			if err := s.Run(t.Context()); (err != nil) != (left > 0) {
				t.Errorf("%d left, %v", left, err)
			}
			if d := drops(t, j.Dir()); d[what]+left != 3*maxAside || len(d) > 1 || left > 2*maxAside {
				t.Errorf("drops %v and %d left, want %d", d, left, 3*maxAside)
			}
			if !b.arrived(want...) {
				t.Errorf("taken %d of %d", len(b.taken()), len(want))
			}
		})
	}
}
