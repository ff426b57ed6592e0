package ship

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/export/tail"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
)

// pod appends a span of a sandbox to the journal: "sandbox start" of the given length,
// or another, which fails if its name says so. Its name is that of the sandbox and its own.
func pod(t *testing.T, j *journal.Journal, sandbox, name string, took time.Duration) {
	t.Helper()
	text := func(k, v string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
	}
	trace, id := sha256.Sum256([]byte(sandbox)), sha256.Sum256([]byte(sandbox+name))
	span := &tracepb.Span{TraceId: trace[:16], SpanId: id[:8], Name: name, StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + uint64(took), Attributes: []*commonpb.KeyValue{text("of", sandbox)}}
	if strings.Contains(name, "fails") {
		span.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	rs := &tracepb.ResourceSpans{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text(names.Sandbox, sandbox), text(names.Run, "1")}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: names.ShimScope}, Spans: []*tracepb.Span{span}}},
	}
	if err := journaltest.Append(j, []*tracepb.ResourceSpans{rs}); err != nil {
		t.Fatal(err)
	}
}

// once ships what is there, and returns what has arrived of each sandbox, in order.
func once(t *testing.T, j *journal.Journal, b *podBackend, o tail.Options) (st Status) {
	t.Helper()
	s := &Shipper{Dir: j.Dir(), Client: b, Once: true, Journal: j, Choice: NewChoice(j.Dir(), o), Progress: func(now Status) { st = now }, Linger: time.Millisecond}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return st
}

// podBackend notes the sandbox of each span.
type podBackend struct {
	backend
	got []string
}

func (b *podBackend) take(rs []*tracepb.ResourceSpans) error {
	for _, r := range rs {
		for _, ss := range r.ScopeSpans {
			for _, s := range ss.Spans {
				b.got = append(b.got, s.Attributes[0].Value.GetStringValue()+" "+s.Name)
			}
		}
	}
	return nil
}

func (b *podBackend) UploadTraces(_ context.Context, rs []*tracepb.ResourceSpans) error {
	if b.answer != nil {
		if err := b.answer(nil); err != nil {
			return err
		}
	}
	return b.take(rs)
}

// TestOnly: of slow and failed sandboxes all is shipped, of others nothing, also what
// comes after the decision and after another shipper; what is undecided waits.
func TestOnly(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &podBackend{}
	o := tail.Options{Only: tail.Slow, SlowStart: time.Second}
	for _, sandbox := range []string{"quick", "slow", "broken", "starting"} {
		pod(t, j, sandbox, "Create", 0)
	}
	pod(t, j, "broken", "Start fails", 0)
	pod(t, j, "quick", names.SandboxStart, 100*time.Millisecond)
	st := once(t, j, b, o)
	if len(b.got) > 0 || st.KeptOut != 2 {
		t.Errorf("before any decision but one, %q are shipped and %d kept out", b.got, st.KeptOut)
	}
	pod(t, j, "slow", names.SandboxStart, 2*time.Second)
	pod(t, j, "broken", names.ShimDelete, 0) // it never started
	for _, sandbox := range []string{"quick", "slow", "broken", "starting"} {
		pod(t, j, sandbox, "later", 0)
	}
	once(t, j, b, o)
	pod(t, j, "quick", "last fails", 0) // too late
	pod(t, j, "slow", "last", 0)
	once(t, j, b, o)
	slices.Sort(b.got)
	want := []string{
		"broken Create", "broken Start fails", "broken later", "broken shim delete",
		"slow Create", "slow last", "slow later", "slow sandbox start",
	}
	if !slices.Equal(b.got, want) {
		t.Errorf("shipped: %q\nwant:    %q", b.got, want)
	}
	if got := drops(t, j.Dir())["kept_out"]; got != 4 {
		t.Errorf("%d spans are counted as kept out, want 4", got)
	}
	// Whoever wants all gets what was held.
	once(t, j, b, tail.Options{})
	if n := len(b.got); n != len(want)+2 {
		t.Errorf("with all, %q", b.got)
	}
}

// TestOnlyAfterRestart: a shipper that begins anew knows whose the traces of other
// programs' spans are: of a sandbox that was kept out none is sent.
func TestOnlyAfterRestart(t *testing.T) {
	j := openJournal(t, journal.Options{})
	b := &podBackend{}
	o := tail.Options{Only: tail.Slow, SlowStart: time.Second}
	pod(t, j, "quick", names.SandboxStart, 0)
	pod(t, j, "slow", names.SandboxStart, 2*time.Second)
	once(t, j, b, o)
	for _, sandbox := range []string{"quick", "slow"} {
		trace, id := sha256.Sum256([]byte(sandbox)), sha256.Sum256([]byte(sandbox+"caller"))
		span := &tracepb.Span{TraceId: trace[:16], SpanId: id[:8], Name: "RunPodSandbox", Attributes: []*commonpb.KeyValue{
			{Key: "of", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sandbox}}},
		}}
		data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{span}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if done, err := j.AppendPosted(1, []journal.Posted{{Data: data, Spans: 1}}); done != 1 || err != nil {
			t.Fatal(done, err)
		}
	}
	st := once(t, j, b, o)
	if want := []string{"slow sandbox start", "slow RunPodSandbox"}; !slices.Equal(b.got, want) || st.KeptOut != 1 {
		t.Errorf("shipped %q, want %q; %d kept out", b.got, want, st.KeptOut)
	}
}

// TestOnlyKeepsHeldRecords: what waits for a decision is no less in the journal than what
// has not been read: if its segment is removed, it is moved or counted as lost.
func TestOnlyKeepsHeldRecords(t *testing.T) {
	j := openJournal(t, journal.Options{SegmentBytes: 4 << 10, MaxBytes: 64 << 10, Shipped: true})
	b := &podBackend{}
	o := tail.Options{Only: tail.Slow, SlowStart: time.Second}
	pod(t, j, "slow", "Create", 0)
	once(t, j, b, o)
	for i := range 400 { // other sandboxes push it out of its segment
		pod(t, j, fmt.Sprint("quick ", i), names.SandboxStart, 0)
		if i%20 == 0 {
			once(t, j, b, o)
		}
	}
	pod(t, j, "slow", names.SandboxStart, 2*time.Second)
	once(t, j, b, o)
	slices.Sort(b.got) // a record that is moved comes later
	if want := []string{"slow Create", "slow sandbox start"}; !slices.Equal(b.got, want) {
		t.Errorf("shipped %q, want %q; lost: %v", b.got, want, drops(t, j.Dir()))
	}
}

// TestHeldCannotBeRead: what is held and cannot be read now stays so until it can, also when
// others decide on its sandbox meanwhile. What is damaged is counted.
func TestHeldCannotBeRead(t *testing.T) {
	j := openJournal(t, journal.Options{SegmentBytes: 4 << 10})
	b := &podBackend{}
	o := tail.Options{Only: tail.Slow, SlowStart: time.Second}
	try := func() error {
		s := &Shipper{Dir: j.Dir(), Client: b, Once: true, Journal: j, Choice: NewChoice(j.Dir(), o), Linger: time.Millisecond}
		return s.Run(t.Context())
	}
	for _, sandbox := range []string{"slow", "slower", "quick"} {
		pod(t, j, sandbox, "Create", 0)
	}
	once(t, j, b, o)
	first, err := filepath.Glob(filepath.Join(j.Dir(), "*.seg"))
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	for i := range 40 { // into another segment
		pod(t, j, fmt.Sprint("other ", i), names.SandboxStart, 0)
	}
	once(t, j, b, o)
	away := first[0] + ".away"
	// A directory in its place is no end of the segment, and cannot be read.
	if err := errors.Join(os.Rename(first[0], away), os.Mkdir(first[0], 0o700)); err != nil {
		t.Fatal(err)
	}
	pod(t, j, "slow", names.SandboxStart, 2*time.Second)
	pod(t, j, "quick", names.SandboxStart, 0)
	for range 2 {
		if err := try(); err == nil || !strings.Contains(err.Error(), "that are held") {
			t.Errorf("nothing says that records cannot be read: %v", err)
		}
	}
	if want := []string{"slow sandbox start"}; !slices.Equal(b.got, want) {
		t.Errorf("shipped %q, want %q", b.got, want)
	}
	if err := errors.Join(os.Remove(first[0]), os.Rename(away, first[0])); err != nil {
		t.Fatal(err)
	}
	st := once(t, j, b, o)
	if want := []string{"slow sandbox start", "slow Create"}; !slices.Equal(b.got, want) || st.KeptOut != 1 {
		t.Errorf("shipped %q, want %q; %+v", b.got, want, st)
	}
	text, err := os.ReadFile(first[0])
	if err == nil {
		err = os.WriteFile(first[0], bytes.ReplaceAll(text, []byte("slower"), []byte("SLOWER")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	pod(t, j, "slower", names.SandboxStart, 2*time.Second)
	st = once(t, j, b, o)
	if lost := drops(t, j.Dir()); len(b.got) != 3 || st.Rejected[losses.Undecodable] != 1 || lost["undecodable"] != 1 {
		t.Errorf("shipped %q, lost %v; %+v", b.got, lost, st)
	}
}

// TestOnlyWhenSetAside: what is read again since the backend refused it is the upload, not
// what lies between its records and is kept out or held.
func TestOnlyWhenSetAside(t *testing.T) {
	j := openJournal(t, journal.Options{})
	for _, sandbox := range []string{"slow", "slower"} {
		pod(t, j, sandbox, names.SandboxStart, 2*time.Second)
		pod(t, j, "quick "+sandbox, names.SandboxStart, 0)
		pod(t, j, "starting", "Create "+sandbox, 0)
	}
	b, refused := &podBackend{}, false
	b.answer = func([]string) error {
		if refused {
			return nil
		}
		refused = true
		return &RejectedError{Reason: losses.CollectorRefused, Spans: AllSpans, Err: errors.New("no")}
	}
	st := once(t, j, b, tail.Options{Only: tail.Slow, SlowStart: time.Second})
	slices.Sort(b.got)
	if want := []string{"slow sandbox start", "slower sandbox start"}; !slices.Equal(b.got, want) || st.KeptOut != 2 || len(st.Rejected) > 0 {
		t.Errorf("shipped %q, want %q; %+v", b.got, want, st)
	}
}
