package memory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// BenchmarkRelays is what a relay takes on a host that has a hundred of them, or
// SHIMTRACE_RELAYS, each of which has relayed a container's start and is left alone. Beside
// it stands what the inner shim takes, which only answers.
func BenchmarkRelays(b *testing.B) {
	count := 100
	if text := os.Getenv("SHIMTRACE_RELAYS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			b.Fatal("SHIMTRACE_RELAYS: ", err)
		}
	}
	h := newHost(b)
	for i := range count {
		h.start(fmt.Sprintf("box%d", i))
	}
	time.Sleep(settled)
	for b.Loop() {
	}
	var relays, inner usages
	for _, p := range h.pods {
		relays = append(relays, usage(b, p.relay))
		inner = append(inner, usage(b, p.inner))
	}
	b.ReportMetric(0, "ns/op")
	relays.report(b, "relay")
	inner.report(b, "inner")
}

// settled is after how long a relay has given back what its start took.
const settled = 12 * time.Second

// host is one with pods, of which each has a relay.
type host struct {
	tb        testing.TB
	dir, link string
	environ   []string
	pods      []*pod
}

// pod is one of them.
type pod struct {
	id            string
	calls, direct *ttrpc.Client
	relay, inner  int // processes
}

func newHost(tb testing.TB) *host {
	tb.Helper()
	bin, err := traced.Bin()
	check(tb, err)
	h := &host{tb: tb}
	h.dir, err = tempdir.Make()
	check(tb, err)
	tb.Cleanup(func() { os.RemoveAll(h.dir) })
	build(tb, "./memory/inner", filepath.Join(h.dir, "containerd-shim-idle-v2"))
	h.link = filepath.Join(h.dir, "containerd-shim-idle-traced-v2")
	check(tb, os.Symlink(filepath.Join(bin, "containerd-shim-traced-v2"), h.link))
	h.environ = environ(h.dir, h.configure("config.toml", ""))
	tb.Cleanup(h.end)
	return h
}

// configure writes a configuration with more sections, and returns its path.
func (h *host) configure(name, more string) string {
	h.tb.Helper()
	path := filepath.Join(h.dir, name)
	check(h.tb, os.WriteFile(path, fmt.Appendf(nil, "%s[journal]\ndir = %q\n[relay]\nstate_dir = %q\n", more, filepath.Join(h.dir, "journal"), filepath.Join(h.dir, "state")), 0o600))
	return path
}

// start starts a container's shim as containerd does, with more variables in its environment,
// and makes the calls of its start.
func (h *host) start(id string, more ...string) *pod {
	h.tb.Helper()
	bundle := filepath.Join(h.dir, "bundles", id)
	check(h.tb, os.MkdirAll(bundle, 0o711))
	p := &pod{id: id}
	p.calls, p.direct = startShim(h.tb, h.link, bundle, id, slices.Concat(h.environ, more))
	p.relay, p.inner = processOf(h.tb, h.link, "relay", id), processOf(h.tb, filepath.Join(h.dir, "containerd-shim-idle-v2"), "serve", id)
	h.pods = append(h.pods, p)
	for _, method := range []string{"Create", "Start", "State", "Pids", "Connect", "Stats"} {
		check(h.tb, p.calls.Call(context.Background(), "containerd.task.v2.Task", method, request(id, ""), new(emptypb.Empty)))
	}
	return p
}

// end ends all of them.
func (h *host) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, p := range h.pods {
		_ = p.direct.Call(ctx, "containerd.task.v2.Task", "Shutdown", request("", ""), new(emptypb.Empty))
		p.direct.Close()
		p.calls.Close()
	}
	await(h.tb, "the relays have ended", func() bool {
		for _, p := range h.pods {
			if exists(p.relay) {
				return false
			}
		}
		return true
	})
}

// usages are those of processes that do the same.
type usages []taken

func (all usages) report(b *testing.B, name string) {
	var sum taken
	for _, t := range all {
		sum.rss += t.rss / float64(len(all))
		sum.pss += t.pss / float64(len(all))
		sum.anonymous += t.anonymous / float64(len(all))
	}
	b.ReportMetric(sum.rss/1e6, name+"-RSS-MB")
	b.ReportMetric(sum.pss/1e6, name+"-PSS-MB")
	b.ReportMetric(sum.anonymous/1e6, name+"-anonymous-MB")
}
