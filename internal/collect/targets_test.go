package collect

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestTargets: of several targets one is down, one never answers and one refuses
// everything. The others get every span once, of each what it lacks is known, and what is
// lost is counted for the target that lost it.
func TestTargets(t *testing.T) {
	one, two := newTaken(t), newTaken(t)
	down := testkit.FreePort(t)
	asked, silent := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		select {
		case <-silent:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(silent) })
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, _ := proto.Marshal(&status.Status{Code: 3, Message: "no"})
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(body)
	}))
	t.Cleanup(refuses.Close)
	h := startHost(t, fmt.Sprintf(`[export]
endpoint = %q
[export.target.two]
endpoint = %q
[export.target.down]
endpoint = "http://%s"
[export.target.slow]
endpoint = %q
[export.target.refuses]
endpoint = %q
`, one.url, two.url, down, slow.URL, refuses.URL))
	stop := h.load(func() int { return min(one.count(), two.count()) })
	<-asked
	had, next := two.count(), one.count()
	eventually(t, "more spans beside the slow target", func() bool { return two.count() > had+100 && one.count() > next+100 })
	stop()
	h.complete("the default target", one)
	h.complete("the target two", two)
	dir := filepath.Join(h.dir, "journal")
	lost := func() map[string]int { return drops(t, dir) }
	eventually(t, "the refused spans to be counted", func() bool { return lost()["refuses: collector_refused"] == int(h.last) })
	if all := lost(); len(all) != 1 {
		t.Errorf("lost: %v", all)
	}
	waits := make(map[string]int)
	eventually(t, "no spans to wait for the targets that take or refuse them", func() bool {
		targets := journal.Targets(dir) // with the positions of now
		now, err := journal.NewSurveyor(dir).Survey(targets...)
		if err != nil {
			t.Fatal(err)
		}
		for i, target := range targets {
			waits[target.Name] = now.Waiting[i].Spans
		}
		return waits[""] == 0 && waits["two"] == 0 && waits["refuses"] == 0
	})
	for _, name := range []string{"down", "slow"} {
		if waits[name] != int(h.last) {
			t.Errorf("%d of %d spans wait for the target %q", waits[name], h.last, name)
		}
	}
	h.end()
	for _, said := range []string{"down: ", "refuses: 0 spans shipped", "two: "} {
		if !strings.Contains(h.log.String(), said) {
			t.Errorf("the log lacks %q:\n%s", said, h.log)
		}
	}
}

// TestTargetComesAndGoes: a target that is added gets what the journal has, one that is
// removed leaves nothing, and neither disturbs the others. A journal from the time of one
// target goes on where it was.
func TestTargetComesAndGoes(t *testing.T) {
	one, two := newTaken(t), newTaken(t)
	text := fmt.Sprintf("[export]\nendpoint = %q\n", one.url)
	h := startHost(t, text)
	for range 10 {
		h.record()
	}
	h.complete("the only target", one)
	dir := filepath.Join(h.dir, "journal")
	h.edit(text + fmt.Sprintf("[export.target.two]\nendpoint = %q\n", two.url))
	h.record()
	h.complete("the added target", two)
	h.edit(text)
	eventually(t, "the removed target's files to be gone", func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "*two*"))
		return err == nil && len(left) == 0
	})
	h.record()
	h.complete("the only target", one)
	if _, err := os.Stat(filepath.Join(dir, "shipped.json")); err != nil {
		t.Error(err)
	}
	if two.has(h.last) {
		t.Error("the removed target got a span")
	}
	// What an earlier process has left is removed as well.
	h.end()
	if err := journal.Begin(dir, "three"); err != nil {
		t.Fatal(err)
	}
	h.run()
	eventually(t, "an unknown target's files to be gone", func() bool { return len(journal.Targets(dir)) == 1 })
	h.record()
	h.complete("the only target, in another process", one)
}

// drops returns what the journal says is lost.
func drops(t *testing.T, dir string) map[string]int {
	t.Helper()
	all := make(map[string]int)
	if _, err := journal.Scan(dir, func(r journal.Record) error {
		if r.Kind.Traces() {
			return nil
		}
		lost, err := r.Drops()
		for reason, n := range lost {
			all[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
