package traced_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// A session does things with one runtime and writes down what a user saw.
type session struct {
	*testing.T
	in      *traced.Install
	rt      rig.Runtime
	nerdctl string // the runtime's name for nerdctl
	script  strings.Builder
	ids     []string // replaced in the script: old, new, old, new, …
}

func newSession(t *testing.T, in *traced.Install, wrapped bool) *session {
	if wrapped {
		return &session{T: t, in: in, rt: in.Runtime, nerdctl: traced.NerdctlRuntime}
	}
	return &session{T: t, in: in, rt: rig.Runc, nerdctl: rig.Runc.Type}
}

// saw writes down the outcome of a command.
func (s *session) saw(res rig.Result) rig.Result {
	fmt.Fprintf(&s.script, "$ %s\n%s", strings.Join(res.Args, " "), res.Stdout)
	for line := range strings.Lines(res.Stderr) {
		// nerdctl's race between the end of a container and its own signal handler.
		if !strings.Contains(line, "forward signal child exited") {
			fmt.Fprintf(&s.script, "! %s", line)
		}
	}
	fmt.Fprintf(&s.script, "= %d\n", res.Code)
	if res.Err != nil {
		s.Errorf("%v", res.Err)
	}
	return res
}

func (s *session) ctr(args ...string) rig.Result    { return s.saw(s.in.Rig.Ctr(args...)) }
func (s *session) crictl(args ...string) rig.Result { return s.saw(s.in.Rig.Crictl(args...)) }
func (s *session) nerd(args ...string) rig.Result   { return s.saw(s.in.Rig.Nerdctl(args...)) }

// hear is ctr with a process that says the words last.
func (s *session) hear(words []string, args ...string) rig.Result {
	return s.saw(s.in.Rig.CtrHearing(words, args...))
}

// talk is ctr or nerdctl with a process that is told something, and says words last.
func (s *session) talk(with rig.Talk, program string, args ...string) rig.Result {
	return s.saw(s.in.Rig.Talk(with, program, args...))
}

// run is ctr run.
func (s *session) run(args ...string) rig.Result {
	return s.ctr(append([]string{"run", "--runtime", s.rt.Shim()}, args...)...)
}

// feed runs a client with a standard input, whose end not every client tells the
// container of.
func (s *session) feed(stdin string, args ...string) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	cmd := s.in.Rig.Command(ctx, args[0], args[1:]...)
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	_ = cmd.Run() // the status says it
	s.saw(rig.Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()})
}

// pod runs a pod that has the session's runtime.
func (s *session) pod(name string) *rig.Sandbox {
	pod, err := s.in.Rig.RunPod(rig.Pod{Name: name, Runtime: s.rt.Name, HostNetwork: true})
	check(s.T, err)
	s.ids = append(s.ids, pod.ID, "<pod "+name+">")
	return pod
}

// container creates and starts a container in a pod.
func (s *session) container(pod *rig.Sandbox, c rig.Container) string {
	id, err := pod.Create(c)
	check(s.T, err)
	s.ids = append(s.ids, id, "<container "+c.Name+">")
	s.crictl("start", id)
	return id
}

// eventually waits until the command prints the text, and writes that down.
func (s *session) eventually(text string, run func(args ...string) rig.Result, args ...string) {
	s.Helper()
	var res rig.Result
	until(s.T, strings.Join(args, " ")+" to print "+text, func() bool {
		res = run(args...)
		return strings.Contains(res.Stdout, text)
	})
	s.saw(res)
}

var until = testkit.Until

// varying is what differs between two runs of the same thing, and what stands for
// it in a transcript.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{12,13}\b`), "<id>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)`), "<time>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} \S+`), "<time>"},
	{regexp.MustCompile(`\btime="[^"]*"`), "<time>"},
	{regexp.MustCompile(`(?i)\b(\d+|about an?|less than a) \w+ ago\b`), "<ago>"},
	{regexp.MustCompile(`Up \d+ \w+|Up Less than a second`), "Up"},
	{regexp.MustCompile(`(?i)("?pid"?[=: ]+)\d+`), "${1}<pid>"},
	{regexp.MustCompile(`(?m)^(\S+ +)\d+( +[A-Z]+)$`), "${1}<pid>${2}"}, // ctr tasks list
	{regexp.MustCompile(`/proc/\d+/`), "/proc/<pid>/"},
	{regexp.MustCompile(`\bE\d{4} [\d:.]+ +\d+ `), "E<time> "}, // klog
	{regexp.MustCompile(` {2,}`), "  "},                        // tables are as wide as what differs
}

// runtimeOptions writes down with which runtime, and with which options for it, a
// container of nerdctl's was created.
func (s *session) runtimeOptions(name string) {
	s.Helper()
	id := s.in.Rig.Nerdctl("ps", "--all", "--quiet", "--no-trunc", "--filter", "name="+name)
	check(s.T, id.Check())
	info := s.in.Rig.Ctr("containers", "info", id.Out())
	check(s.T, info.Check())
	var c struct {
		Runtime struct {
			Name    string
			Options struct {
				TypeURL string `json:"type_url"`
				Value   []byte `json:"value"`
			}
		}
	}
	if err := json.Unmarshal([]byte(info.Stdout), &c); err != nil {
		s.Fatalf("%v: %s", err, info.Stdout)
	}
	o := c.Runtime.Options
	if o.TypeURL == "" {
		s.Errorf("%s was created without options: %s", name, info.Stdout)
	}
	fmt.Fprintf(&s.script, "runtime %s, options %s %x\n", c.Runtime.Name, o.TypeURL, o.Value)
}

// transcript is what was seen, without what varies, in the words of bare runc.
func (s *session) transcript() string {
	text := strings.NewReplacer(s.ids...).Replace(s.script.String())
	text = strings.NewReplacer(
		s.in.Shim, rig.Runc.Type,
		traced.NerdctlRuntime, rig.Runc.Type,
		s.in.Runtime.Name, rig.Runc.Name,
	).Replace(text)
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.with)
	}
	return text
}

// criSpec writes a container's configuration that needs more than rig.Container
// has, and creates the container.
func (s *session) criSpec(pod *rig.Sandbox, podName string, spec map[string]any) rig.Result {
	data, err := json.Marshal(spec)
	check(s.T, err)
	dir := filepath.Join(s.in.Rig.Dir, "cri")
	file := filepath.Join(dir, podName+".spec.json")
	check(s.T, os.WriteFile(file, data, 0o644))
	return s.in.Rig.Crictl("create", pod.ID, file, filepath.Join(dir, podName+".json"))
}

// diff is the lines in which two texts differ, with where they begin to.
func diff(bare, wrapped string) string {
	a, b := strings.Split(bare, "\n"), strings.Split(wrapped, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			from := max(i-4, 0)
			show := func(lines []string) string {
				return strings.Join(lines[min(from, len(lines)):min(i+8, len(lines))], "\n")
			}
			return fmt.Sprintf("line %d\n--- bare\n%s\n--- wrapped\n%s", i+1, show(a), show(b))
		}
	}
	return ""
}
