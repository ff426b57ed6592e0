package traced_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// goesBy waits until the rig's only relay says of its configuration what holds is true for.
func goesBy(t *testing.T, in *traced.Install, what string, holds func(*control.Configuration) bool) (got *control.Configuration) {
	t.Helper()
	began := time.Now()
	until(t, what, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		all, err := control.List(stateDir(in.Rig))
		if err != nil || len(all) != 1 {
			return false
		}
		a, err := control.Ask(ctx, all[0].Socket, control.Request{Do: control.DoStatus})
		got = a.Configuration
		return err == nil && got != nil && holds(got)
	})
	t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
	return got
}

// editor edits an install's configuration, whose sections but [trace] stay.
type editor struct {
	t    *testing.T
	in   *traced.Install
	base string
	read time.Time // when the relay has read what it goes by
}

// newEditor returns one once the guard watches the file.
func newEditor(t *testing.T, in *traced.Install) *editor {
	t.Helper()
	text, err := os.ReadFile(in.Config)
	check(t, err)
	base, _, _ := strings.Cut(string(text), "[trace]")
	c := goesBy(t, in, "the file to be watched", func(c *control.Configuration) bool { return c.Unseen == "" })
	return &editor{t, in, base, c.Read}
}

func (e *editor) write(path, trace string) {
	e.t.Helper()
	check(e.t, os.WriteFile(path, []byte(e.base+"[trace]\n"+trace), 0o600))
}

// taken waits until the relay goes by the last edit.
func (e *editor) taken(what string) {
	e.t.Helper()
	e.read = goesBy(e.t, e.in, what, func(c *control.Configuration) bool { return c.Read.After(e.read) && c.Problem == nil }).Read
}

// TestReload: a pod that runs is traced as the file says by now, however that was edited; a
// bad edit has no effect and is said, also by a relay that goes on for another one.
func TestReload(t *testing.T) {
	in := traced.Start(t, traced.Options{Config: unhurried})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	e := newEditor(t, in)
	var want []string
	call := func(recorded bool) {
		t.Helper()
		for _, do := range []string{"pause", "resume"} {
			check(t, r.Ctr("tasks", do, "box").Check())
			if recorded {
				want = append(want, do)
			}
		}
	}
	call(true)
	const quiet = "slow = '1h'\nquiet = ['Pause', 'Resume', 'State', 'Stats', 'Pids', 'Connect', 'Wait']\n"
	e.write(in.Config, quiet)
	e.taken("written in place")
	call(false)
	e.write(in.Config+".new", "slow = '1h'\n")
	check(t, os.Rename(in.Config+".new", in.Config))
	e.taken("replaced")
	call(true)
	check(t, os.Remove(in.Config))
	goesBy(t, in, "removed", func(c *control.Configuration) bool { return c.Problem != nil })
	call(true)
	e.write(in.Config, "slow = '1h'\nsampler = 'sometimes'\n")
	p := goesBy(t, in, "a bad edit", func(c *control.Configuration) bool {
		return c.Problem != nil && strings.Contains(c.Problem.Error, "sometimes")
	}).Problem
	if line := strings.Count(e.base, "\n") + 3; p.Line != line || p.Column != 11 {
		t.Errorf("the mistake is in line %d, column %d, want %d, 11", p.Line, p.Column, line)
	}
	call(true)
	until(t, "the calls to be in the journal", func() bool {
		all, err := in.Spans()
		check(t, err)
		n := 0
		for _, s := range all {
			if isOf(s, "pause") || isOf(s, "resume") {
				n++
			}
		}
		return n == len(want)
	})
	killRelay(t, r)
	goesBy(t, in, "the successor says so, too", func(c *control.Configuration) bool { return c.Problem != nil && c.Unseen == "" && c.Mode == "static" })
	call(true)
	e.write(in.Config, "mode = 'dynamic'\n")
	goesBy(t, in, "mended", func(c *control.Configuration) bool { return c.Problem == nil && c.Mode == "dynamic" })
	call(false)
	check(t, shimtrace(t, in, "on", "box").Check())
	call(true)
	e.write(in.Config, "mode = 'off'\n")
	goesBy(t, in, "off", func(c *control.Configuration) bool { return c.Mode == "off" })
	call(false)
	check(t, r.Ctr("tasks", "delete", "--force", "box").Check())
	settle(t, in)

	var got []string
	for _, s := range spansOfKilled(t, in) {
		for _, do := range []string{"pause", "resume"} {
			if isOf(s, do) {
				got = append(got, do)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("recorded are %q, want %q", got, want)
	}
	if log := r.Log(); !strings.Contains(log, "the configuration is not taken") || !strings.Contains(log, "sometimes") {
		t.Error("the log does not say what is wrong")
	}
}

// isOf reports whether a span is of a call of a command's.
func isOf(s otlprecv.Span, command string) bool {
	return strings.EqualFold(filepath.Base(s.Name), command)
}

// TestReloadUnderLoad: forty edits of a file under execs; none of these fails, or lacks its span.
func TestReloadUnderLoad(t *testing.T) {
	in := traced.Start(t, traced.Options{Config: unhurried})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	e := newEditor(t, in)
	stop := make(chan struct{})
	var execs sync.WaitGroup
	var mu sync.Mutex
	executed := make(map[string]bool)
	for i := range 2 {
		execs.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("e%d-%d", i, n)
				if err := r.Ctr("tasks", "exec", "--exec-id", id, "box", "true").Check(); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				executed[id] = true
				mu.Unlock()
			}
		})
	}
	for i := range 40 {
		path := in.Config
		if i%2 == 1 {
			path += ".new"
		}
		e.write(path, fmt.Sprintf("slow = '%dms'\njoin = '%s'\n%s", 400+i, []string{"caller", "sandbox"}[i/2%2], []string{"", "sampler = 'always_on'\n", "?\n"}[i%3]))
		if path != in.Config {
			check(t, os.Rename(path, in.Config))
		}
		time.Sleep(50 * time.Millisecond)
	}
	e.write(in.Config, "slow = '2h'\n")
	e.taken("the last edit")
	close(stop)
	execs.Wait()
	check(t, r.Ctr("tasks", "delete", "--force", "box").Check())
	settle(t, in)
	all, err := in.Spans()
	check(t, err)
	for _, s := range all {
		if id, _ := s.Attrs["shimtrace.exec.id"].(string); strings.HasSuffix(s.Name, "Task/Exec") {
			delete(executed, id)
		}
	}
	if len(executed) > 0 {
		t.Errorf("%d execs have no span: %v", len(executed), executed)
	}
}
