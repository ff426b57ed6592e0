package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/relays"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a state directory and a journal of its own.
type host struct {
	t   *testing.T
	dir string
	cfg config.Config
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), cfg: config.Default()}
	h.cfg.Journal.Dir = filepath.Join(t.TempDir(), "journal")
	h.cfg.Export.Endpoint, h.cfg.Export.Protocol = "http://user:planted@collector:4318/x?key=planted", "http/protobuf"
	if err := os.Mkdir(filepath.Join(h.dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) looker() *Looker {
	return &Looker{StateDir: h.dir, Journals: []config.Config{h.cfg}, Wait: time.Minute}
}

// relay adds a relay whose control socket answers as handle does; nil: it has none. With
// hangs nobody serves the socket.
func (h *host) relay(sandbox string, handle control.Handler, hangs bool) {
	h.t.Helper()
	base := filepath.Join(h.dir, "s", sandbox)
	listen := func(path string) net.Listener {
		l, err := net.Listen("unix", path)
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { l.Close() })
		return l
	}
	listen(base + ".sock")
	text, err := json.Marshal(control.Relay{Sandbox: sandbox, Pod: sandbox, PodNamespace: "ns", RelaySock: base + ".sock", Inner: "/x/containerd-shim-runc-v2"})
	if err == nil {
		err = os.WriteFile(base+".json", text, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	switch {
	case hangs:
		listen(base + control.Suffix)
	case handle != nil:
		s := control.Serve(listen(base+control.Suffix), handle)
		h.t.Cleanup(s.Close)
	}
}

func answering(sandbox string, f *control.Facts) control.Handler {
	return func(net.Conn, control.Request) control.Answer {
		return control.Answer{Sandbox: sandbox, On: true, Facts: f}
	}
}

// TestConfiguration: a picture says of whom the configuration is not in effect, and why; the
// others are not mentioned.
func TestConfiguration(t *testing.T) {
	h := newHost(t)
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	for name, c := range map[string]*control.Configuration{
		"a": {Mode: "dynamic", Problem: &control.Problem{Line: 2, Column: 3, Error: "/f: line 2, column 3: no\n/f: line 3: neither", Since: since.Add(time.Hour)}},
		"b": {Mode: "static", Problem: &control.Problem{Error: "/f: line 2, column 3: no\n/f: line 3: neither", Since: since}},
		"c": {Mode: "off", Unseen: "no guard", NewPods: []string{"journal.dir", "resource"}},
		"d": {Mode: "static"},
		"e": nil,
	} {
		h.relay(name, func(net.Conn, control.Request) control.Answer { return control.Answer{Sandbox: name, Configuration: c} }, false)
	}
	p := h.looker().Look(t.Context())
	var got []string
	for _, l := range p.Text(nil) {
		if strings.HasPrefix(l, "config ") {
			got = append(got, l)
		}
	}
	if want := []string{
		"config    not taken by 2 relays since 2026-01-02 03:04:05: /f: line 2, column 3: no; /f: line 3: neither",
		"config    changes reach new pods only, not 1 relay that runs: no guard",
		"config    1 relay goes by what it began with, new pods do not: journal.dir, resource",
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if r := p.Relays[0]; r.Mode != "dynamic" || r.Configuration.Problem.Line != 2 {
		t.Errorf("%+v", r)
	}
}

func of[T any](v T) *T { return &v }

// write appends spans of a sandbox to the journal.
func (h *host) write(sandbox string, spans int) {
	h.t.Helper()
	j := journal.New(h.cfg.Journal.Dir, journal.Options{})
	ss := &tracepb.ScopeSpans{}
	for range spans {
		ss.Spans = append(ss.Spans, &tracepb.Span{Name: "x"})
	}
	id := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sandbox}}
	rs := &tracepb.ResourceSpans{Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: names.Sandbox, Value: id}}}, ScopeSpans: []*tracepb.ScopeSpans{ss}}
	j.Losses(losses.Ours).Add(losses.QueueFull, 2)
	if err := errors.Join(journaltest.Append(j, []*tracepb.ResourceSpans{rs}), j.Close()); err != nil {
		h.t.Fatal(err)
	}
}

// ship makes it so that all there is has been shipped, but for the record with one number,
// which is held, and that with another, which is set aside.
func (h *host) ship(held, aside int) {
	h.t.Helper()
	f := journal.Follow(h.cfg.Journal.Dir, journal.Cursor{})
	defer f.Close()
	var c journal.Cursor
	for n := 0; ; {
		r, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			h.t.Fatal(err)
		}
		at := journal.Range{Position: journal.Position{Segment: r.Segment, Offset: r.Offset}, End: r.End(), Spans: r.Spans}
		switch {
		case !r.Kind.Traces():
			continue
		case n == held:
			c.Held = append(c.Held, at)
		case n == aside:
			c.Aside = append(c.Aside, at)
		}
		n++
	}
	c.Position = f.Cursor().Position
	if err := journal.WriteCursor(h.cfg.Journal.Dir, "", c); err != nil {
		h.t.Fatal(err)
	}
}

// TestPicture: what relays, journals and shipments say is in the picture, and in its text;
// what an older relay does not know is "-".
func TestPicture(t *testing.T) {
	h := newHost(t)
	h.relay("new", answering("new", &control.Facts{
		PID: 1, Recorded: of(uint64(12)), Waiting: of(int64(0)), Held: of(int64(3)), Reparented: of(uint64(4)),
		Clock: &control.Clock{Offset: -147 * time.Millisecond},
	}), false)
	h.relay("old", nil, false)
	h.relay("older", answering("older", nil), false)
	h.write("new", 7)
	l, err := ship.OpenLedger(ship.TotalsPath(h.cfg.Journal.Dir, ""))
	if err == nil {
		err = l.Note(ship.Status{Shipped: 5, Rejected: map[losses.Reason]int{losses.CollectorRefused: 2}, Err: errors.New("away")})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.write("held", 2)
	h.write("set aside", 3)
	h.ship(1, 2)
	h.write("unread", 4)
	p := h.looker().Look(t.Context())
	text := strings.Join(p.Text(nil), "\n")
	for _, want := range []string{
		"guard     there is no guard", "collect   does not run", "16 spans", "shares: ns/new 0.0 MiB", "8 (queue_full: 8) lost",
		"to        http://collector:4318/x, 5 spans shipped, 9 wait, 3 of them set aside, 2 (collector_refused: 2) refused, trying again: away",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	for sandbox, want := range map[string]string{"new": "new ns/new runc static - - 12 0 3 4 -147ms", "old": "old ns/old runc static - - - - - - -", "older": "older ns/older runc static - - - - - - -"} {
		found := false
		for line := range strings.Lines(text) {
			found = found || strings.Join(strings.Fields(line), " ") == want
		}
		if !found {
			t.Errorf("no line %q of %s in\n%s", want, sandbox, text)
		}
	}
	out, err := json.Marshal(p)
	if err != nil || strings.Contains(string(out)+text, "planted") {
		t.Errorf("the endpoint's secrets are said: %v\n%s\n%s", err, out, text)
	}
	if len(p.Relays) != 3 || p.Err() != nil || p.Relays[1].Facts != nil || len(p.Journals) != 1 || p.Journals[0].Targets[0].Shipped != 5 {
		t.Errorf("%v: %s", p.Err(), out)
	}
}

// TestHangingRelay: a relay that does not answer is said not to, beside the others, within
// the bound.
func TestHangingRelay(t *testing.T) {
	h := newHost(t)
	h.relay("hangs", nil, true)
	h.relay("works", answering("works", &control.Facts{Recorded: of(uint64(8))}), false)
	l := h.looker()
	l.Wait = 2 * time.Second
	asked := time.Now()
	var p Picture
	for { // a busy machine may keep the other one from answering, too
		p = l.Look(t.Context())
		if len(p.Relays) == 2 && p.Relays[1].Facts != nil {
			break
		}
		if time.Since(asked) > time.Minute {
			t.Fatalf("the one that works is not there: %+v", p.Relays)
		}
	}
	if p.Relays[0].Error == "" || p.Relays[0].Facts != nil || p.Relays[1].Error != "" || p.Err() == nil {
		t.Errorf("%+v, %v", p.Relays, p.Err())
	}
	text := strings.Join(p.Text(&Picture{}), "\n")
	if !strings.Contains(text, "1 relay has not answered") || !strings.Contains(text, "no answer") || !strings.Contains(text, "works") {
		t.Error(text)
	}
}

// TestLate: who does not heed the time is said to be silent, is not asked again before it
// has answered, and is there again afterwards.
func TestLate(t *testing.T) {
	l := &Looker{Wait: time.Millisecond}
	if !l.begin("x") || l.begin("x") {
		t.Error("it is asked twice at once")
	}
	close(l.asking["x"])
	if !l.begin("x") {
		t.Error("it is not asked any more")
	}
}

// screen is a terminal of a size.
func screen(width, height int) func() (int, int) { return func() (int, int) { return width, height } }

// TestScreen: a picture fits the terminal, is one write, and clears no line before it is
// written.
func TestScreen(t *testing.T) {
	p := &Picture{Time: time.Now(), Guard: &Guard{PID: 1}, Collect: &Collect{State: "answers"}}
	for i := range 50 {
		p.Relays = append(p.Relays, relays.Report{Sandbox: fmt.Sprint("sandbox", i), Name: strings.Repeat("長い", 15), Runtime: "runc"})
	}
	var out writes
	w := &Writer{Out: &out, Screen: screen(60, 20)}
	for range 3 {
		if err := w.Write(p, p); err != nil {
			t.Fatal(err)
		}
	}
	if len(out.all) != 3 {
		t.Fatalf("%d writes of 3 pictures", len(out.all))
	}
	for i, text := range out.all {
		if clears := strings.Contains(text, "\x1b[2J"); clears != (i == 0) {
			t.Errorf("picture %d clears the screen: %v", i, clears)
		}
		lines := strings.Split(strings.TrimSuffix(text, "\x1b[J"), "\n")
		if len(lines) > 20 {
			t.Errorf("%d lines", len(lines))
		}
		if !strings.Contains(text, "lines more; a higher terminal") {
			t.Errorf("what is left out is not said:\n%s", text)
		}
		for _, l := range lines {
			l = strings.NewReplacer("\x1b[2J", "", "\x1b[H", "", "\x1b[K", "").Replace(l)
			if n := len([]rune(l)); n > 60 {
				t.Errorf("%d characters: %q", n, l)
			}
		}
	}
}

// writes notes each write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(b))
	return len(b), nil
}

func (w *writes) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// TestWatch: without a terminal there is one block a picture, or one object a line, with
// rates, until it is to end.
func TestWatch(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		h := newHost(t)
		var mu sync.Mutex
		recorded := uint64(0)
		h.relay("box", func(net.Conn, control.Request) control.Answer {
			mu.Lock()
			defer mu.Unlock()
			recorded += 1000
			return control.Answer{Sandbox: "box", On: true, Facts: &control.Facts{PID: 1, Recorded: of(recorded)}}
		}, false)
		ctx, stop := context.WithCancel(t.Context())
		out := new(writes)
		ended := make(chan error, 1)
		go func() {
			ended <- h.looker().Watch(ctx, &Writer{Out: out, JSON: asJSON, Screen: screen(0, 0)})
		}()
		for out.count() < 3 {
			select {
			case err := <-ended:
				t.Fatal("it has ended: ", err)
			case <-time.After(time.Millisecond):
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		last := out.all[2]
		if asJSON {
			var p Picture
			if err := json.Unmarshal([]byte(last), &p); err != nil || len(p.Relays) != 1 || strings.Count(last, "\n") != 1 {
				t.Errorf("%v: %q", err, last)
			}
			continue
		}
		if !strings.HasSuffix(last, "\n\n") || strings.Contains(last, "\x1b") || !strings.Contains(last, "SPANS/S") || !strings.Contains(last, "/s\n") {
			t.Errorf("got %q", last)
		}
	}
}

// TestUnwritable: Watch ends when nobody reads any more.
func TestUnwritable(t *testing.T) {
	h := newHost(t)
	if err := h.looker().Watch(t.Context(), &Writer{Out: unwritable{}}); err == nil {
		t.Error("no error")
	}
}

type unwritable struct{}

func (unwritable) Write([]byte) (int, error) { return 0, os.ErrClosed }

// TestNoRelays: without relays the rest is there, and so is why.
func TestNoRelays(t *testing.T) {
	h := newHost(t)
	p := h.looker().Look(t.Context())
	var b bytes.Buffer
	if err := (&Writer{Out: &b}).Write(&p, nil); err != nil || p.Err() == nil || !strings.Contains(b.String(), "no traced sandbox runs") || !strings.Contains(b.String(), "journal") {
		t.Errorf("%v, %v, %s", err, p.Err(), &b)
	}
}
