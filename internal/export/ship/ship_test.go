package ship

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// backend is a client with answers set by the test.
type backend struct {
	mu      sync.Mutex
	answer  func(names []string) error // nil: takes everything
	names   []string                   // taken, in order
	uploads int
	stopped bool
}

func (b *backend) Start(context.Context) error { return nil }

func (b *backend) Stop(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	return nil
}

func (b *backend) UploadTraces(ctx context.Context, rs []*tracepb.ResourceSpans) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names := spanNames(rs)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uploads++
	if b.answer != nil {
		if err := b.answer(names); err != nil {
			return err
		}
	}
	b.names = append(b.names, names...)
	return nil
}

func (b *backend) taken() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.names)
}

func spanNames(rs []*tracepb.ResourceSpans) (names []string) {
	for _, r := range rs {
		for _, ss := range r.ScopeSpans {
			for _, s := range ss.Spans {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

func openJournal(t *testing.T, o journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func record(t *testing.T, j *journal.Journal, names ...string) {
	t.Helper()
	ss := &tracepb.ScopeSpans{}
	for _, n := range names {
		ss.Spans = append(ss.Spans, &tracepb.Span{Name: n})
	}
	if err := journaltest.Append(j, []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{ss}}}); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%03d", i))
	}
	return names
}

func drops(t *testing.T, dir string) map[string]int {
	t.Helper()
	total := make(map[string]int)
	if _, err := journal.Scan(dir, func(r journal.Record) error {
		if r.Kind == journal.KindTraces {
			return nil
		}
		d, err := r.Drops()
		for k, v := range d {
			total[k] += v
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return total
}

// fast returns a Shipper with short pauses.
func fast(j *journal.Journal, b *backend) *Shipper {
	return &Shipper{
		Dir: j.Dir(), Client: b, Journal: j,
		Linger: time.Millisecond, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
	}
}

var eventually = testkit.Until

// start runs s until the returned function is called, which returns Run's error.
func start(t *testing.T, s *Shipper) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.Run(ctx) }()
	return sync.OnceValue(func() error { cancel(); return <-result })
}

func TestOnceShipsInOrderAndOnlyOnce(t *testing.T) {
	j := openJournal(t, journal.Options{SegmentBytes: 4 << 10})
	want := numbered(200)
	for _, n := range want {
		record(t, j, n)
	}
	b := &backend{}
	s := fast(j, b)
	s.Once, s.BatchBytes = true, 512
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.taken(), want) || !b.stopped {
		t.Errorf("taken %v, stopped %v", b.taken(), b.stopped)
	}
	if b.uploads < 3 {
		t.Errorf("%d uploads: not bounded", b.uploads)
	}
	again := &backend{}
	s = fast(j, again)
	s.Once = true
	record(t, j, "new")
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(again.taken(), " "); got != "new" {
		t.Errorf("second run: %v", got)
	}
}

func TestFollowsWriters(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &backend{}
	stop := start(t, fast(j, b))
	for i := range 5 {
		record(t, j, fmt.Sprint(i))
		eventually(t, "span arrives", func() bool { return len(b.taken()) == i+1 })
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestOutageLosesNothing(t *testing.T) {
	j := openJournal(t, journal.Options{SegmentBytes: 4 << 10})
	var down = true
	b := &backend{answer: func([]string) error {
		if down {
			return &AwayError{errors.New("connection refused")}
		}
		return nil
	}}
	s := fast(j, b)
	var failures int
	var mu sync.Mutex
	s.Progress = func(st Status) {
		mu.Lock()
		defer mu.Unlock()
		if st.Err != nil {
			failures++
			if st.Retry.IsZero() {
				t.Error("no time of the next attempt")
			}
		}
	}
	stop := start(t, s)
	want := numbered(100)
	for _, n := range want {
		record(t, j, n)
	}
	eventually(t, "some failures", func() bool { mu.Lock(); defer mu.Unlock(); return failures > 5 })
	b.mu.Lock()
	down = false
	b.mu.Unlock()
	eventually(t, "everything arrives", func() bool { return len(b.taken()) == len(want) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(b.taken(), want) || len(drops(t, j.Dir())) != 0 {
		t.Errorf("taken %v, drops %v", b.taken(), drops(t, j.Dir()))
	}
}

func TestEndsDuringOutageAndResumes(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, "a")
	down := errors.New("down")
	b := &backend{answer: func([]string) error { return down }}
	s := fast(j, b)
	s.MinBackoff, s.MaxBackoff = time.Hour, time.Hour
	stop := start(t, s)
	eventually(t, "an attempt", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.uploads > 0 })
	if err := stop(); !errors.Is(err, down) {
		t.Errorf("Run: %v", err)
	}
	b2 := &backend{}
	s = fast(j, b2)
	s.Once = true
	if err := s.Run(t.Context()); err != nil || len(b2.taken()) != 1 {
		t.Errorf("%v, %v", b2.taken(), err)
	}
}

func TestDrainsWhenEnded(t *testing.T) {
	j := openJournal(t, journal.Options{})
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b := &backend{answer: func([]string) error {
		once.Do(func() { close(entered); <-release })
		return nil
	}}
	record(t, j, "first")
	stop := start(t, fast(j, b))
	<-entered
	record(t, j, "second")
	ended := make(chan error)
	go func() { ended <- stop() }()
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := strings.Join(b.taken(), " "); got != "first second" {
		t.Errorf("taken %q", got)
	}
}

// TestEndsThoughMoreComes: what is appended while a shipper ends is for the next one.
func TestEndsThoughMoreComes(t *testing.T) {
	j := openJournal(t, journal.Options{})
	more := 0
	b := &backend{answer: func([]string) error { // as if writers were faster than uploads
		more++
		return journaltest.Append(j, []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: fmt.Sprint("more", more)}}}}}})
	}}
	s := fast(j, b)
	s.Drain = time.Hour
	record(t, j, "first")
	stop := start(t, s)
	eventually(t, "some uploads", func() bool { return len(b.taken()) > 3 })
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on as long as more comes")
	}
	if !Pending(j.Dir(), "") {
		t.Error("nothing is left for the next one")
	}
}

func TestDrainIsBounded(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, "a")
	entered := make(chan struct{}, 1)
	s := fast(j, nil)
	s.Client = hanging{entered}
	s.Drain = 10 * time.Millisecond
	stop := start(t, s)
	<-entered
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

// hanging never answers.
type hanging struct{ entered chan struct{} }

func (hanging) Start(context.Context) error { return nil }
func (hanging) Stop(context.Context) error  { return nil }
func (h hanging) UploadTraces(ctx context.Context, _ []*tracepb.ResourceSpans) error {
	h.entered <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func TestOnlyTheBadSpanIsRejected(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &backend{answer: func(names []string) error {
		if slices.Contains(names, "bad") {
			return &RejectedError{Reason: losses.CollectorRefused, Spans: AllSpans, Err: errors.New("400")}
		}
		return nil
	}}
	record(t, j, "a", "b", "bad", "c")
	record(t, j, "d", "e")
	s := fast(j, b)
	s.Once = true
	var last Status
	s.Progress = func(st Status) { last = st }
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken := b.taken()
	slices.Sort(taken)
	if got := strings.Join(taken, " "); got != "a b c d e" {
		t.Errorf("taken %q", got)
	}
	if d := drops(t, j.Dir()); d["collector_refused"] != 1 || len(d) != 1 {
		t.Errorf("drops %v", d)
	}
	if last.Shipped != 5 || last.Rejected[losses.CollectorRefused] != 1 {
		t.Errorf("status %+v", last)
	}
}

func TestRejectionOfEverythingIsBounded(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, numbered(500)...)
	b := &backend{answer: func([]string) error {
		return &RejectedError{Reason: losses.CollectorRefused, Spans: AllSpans, Err: errors.New("400")}
	}}
	s := fast(j, b)
	s.Once = true
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := drops(t, j.Dir()); d["collector_refused"] != 500 {
		t.Errorf("drops %v", d)
	}
	if b.uploads > fewParts+2 { // it, it again beside the rest, its parts
		t.Errorf("%d uploads", b.uploads)
	}
}

func TestRejectionIsBelievedAfterTries(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, "a")
	refusals := 0
	b := &backend{answer: func([]string) error {
		if refusals++; refusals <= 3 {
			return &RejectedError{Reason: losses.CollectorFails, Spans: AllSpans, Tries: 4, Err: errors.New("500")}
		}
		return nil
	}}
	s := fast(j, b)
	s.Once = true
	if err := s.Run(t.Context()); err != nil || len(b.taken()) != 1 {
		t.Errorf("refused three times of four: %v, %v", b.taken(), err)
	}
}

func TestPartialSuccessIsCounted(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, "a", "b", "c")
	b := &backend{answer: func([]string) error {
		return &RejectedError{Reason: losses.CollectorRefusedSome, Spans: 2, Err: errors.New("x")}
	}}
	s := fast(j, b)
	s.Once = true
	var last Status
	s.Progress = func(st Status) { last = st }
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.uploads != 1 || last.Shipped != 1 || drops(t, j.Dir())["collector_refused_some"] != 2 {
		t.Errorf("%d uploads, %+v, drops %v", b.uploads, last, drops(t, j.Dir()))
	}
}

func TestOnlyOneShips(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &backend{}
	stop := start(t, fast(j, b))
	record(t, j, "a")
	eventually(t, "first ships", func() bool { return len(b.taken()) == 1 })
	if err := fast(j, &backend{}).Run(t.Context()); !errors.Is(err, journal.ErrShipped) {
		t.Errorf("second: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	s := fast(j, &backend{})
	s.Once = true
	if err := s.Run(t.Context()); err != nil {
		t.Errorf("after the first: %v", err)
	}
}

func TestEndsWhenIdle(t *testing.T) {
	j := openJournal(t, journal.Options{})
	record(t, j, "a")
	b := &backend{}
	s := fast(j, b)
	s.Idle = 20 * time.Millisecond
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.taken()) != 1 {
		t.Errorf("taken %v", b.taken())
	}
	lock, err := journal.LockShipping(j.Dir(), "")
	if err != nil {
		t.Errorf("the lock is still held: %v", err)
	} else {
		lock.Close()
	}
}

// TestNoSpanIsLeftWhenIdle: writers, like relays, append and then check whether a
// process ships. No span may stay behind.
func TestNoSpanIsLeftWhenIdle(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &backend{}
	var runs sync.WaitGroup
	ensure := func() {
		if lock, err := journal.LockShipping(j.Dir(), ""); err != nil {
			return
		} else {
			lock.Close()
		}
		runs.Go(func() {
			s := fast(j, b)
			s.Idle = time.Millisecond
			if err := s.Run(t.Context()); err != nil && !errors.Is(err, journal.ErrShipped) {
				t.Error(err)
			}
		})
	}
	want := numbered(150)
	for i, n := range want {
		record(t, j, n)
		ensure()
		time.Sleep(time.Duration(i%7) * time.Millisecond)
	}
	runs.Wait()
	if !slices.Equal(b.taken(), want) {
		t.Errorf("taken %d of %d", len(b.taken()), len(want))
	}
}

// TestUndecodableRecordIsCounted: another program may have written a record from the
// format's description.
func TestUndecodableRecordIsCounted(t *testing.T) {
	j := openJournal(t, journal.Options{})
	le, crc := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	segment := append([]byte("shimtrj\x01MARKER!!"), make([]byte, 12)...)
	segment = le.AppendUint32(segment, crc32.Checksum(segment, crc))
	head := append([]byte("MARKER!!"), make([]byte, 8)...)
	head = append(head, 1, 0, 0, 0)
	head = le.AppendUint32(head, 3)
	payload := []byte("no protobuf")
	head = le.AppendUint32(head, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum(head, crc), crc, payload)
	segment = append(le.AppendUint32(append(segment, head...), sum), payload...)
	if err := os.WriteFile(filepath.Join(j.Dir(), "00000000000000000042.seg"), segment, 0o600); err != nil {
		t.Fatal(err)
	}
	record(t, j, "good")
	b := &backend{}
	s := fast(j, b)
	s.Once = true
	var last Status
	s.Progress = func(st Status) { last = st }
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if last.Rejected[losses.Undecodable] != 3 || last.CorruptBytes != 0 || len(b.taken()) != 1 {
		t.Errorf("%+v, taken %v", last, b.taken())
	}
}

// TestEndsWhenTheJournalIsRemoved: no shipper stays for a removed directory, whether it
// was idle or in an outage.
func TestEndsWhenTheJournalIsRemoved(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func([]string) error
	}{
		{"idle", nil},
		{"outage", func([]string) error { return errors.New("backend is away") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := openJournal(t, journal.Options{})
			b := &backend{answer: tt.answer}
			record(t, j, "a")
			done := make(chan error, 1)
			go func() { done <- fast(j, b).Run(t.Context()) }()
			eventually(t, "an upload", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.uploads > 0
			})
			// The shipper may write its progress into the directory meanwhile.
			eventually(t, "the directory to be gone", func() bool { return os.RemoveAll(j.Dir()) == nil })
			select {
			case err := <-done:
				if !errors.Is(err, os.ErrNotExist) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("still runs")
			}
		})
	}
}

// hangs is a backend that does not answer for some spans until released, as if the
// attempt timed out.
type hangs struct {
	*backend
	on               string
	release, entered chan struct{}
}

func (h *hangs) UploadTraces(ctx context.Context, rs []*tracepb.ResourceSpans) error {
	if !slices.ContainsFunc(spanNames(rs), func(n string) bool { return strings.HasPrefix(n, h.on) }) {
		return h.backend.UploadTraces(ctx, rs)
	}
	h.entered <- struct{}{}
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return context.DeadlineExceeded
}
