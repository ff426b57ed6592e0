package traced_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// wantTree compares spans with what is expected with this version of containerd.
// Lines that begin with a version and a bar are for that version only. names are
// as for traced.Tree.
func wantTree(t *testing.T, v rig.Version, want string, spans []otlprecv.Span, names ...string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(strings.TrimPrefix(want, "\n")) {
		switch version, rest, only := strings.Cut(line, "|"); {
		case !only:
			lines = append(lines, line)
		case version == string(v):
			lines = append(lines, rest)
		}
	}
	names = append(names,
		"containerd.task.v2.", "", "containerd.task.v3.", "",
		image.Busybox, "IMAGE",
		// A shim may end before it answers.
		"Task/Shutdown server <nil>", "Task/Shutdown server OK",
	)
	got := slices.Collect(strings.Lines(traced.Tree(withoutPolls(spans), names...)))
	if !slices.Equal(lines, got) {
		t.Errorf("missing:\n%sunexpected:\n%sall of it:\n%s", without(lines, got), without(got, lines), strings.Join(got, ""))
	}
}

// without returns the lines of a that b does not have, or has less often.
func without(a, b []string) string {
	b = slices.Clone(b)
	var left strings.Builder
	for _, line := range a {
		if i := slices.Index(b, line); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			left.WriteString(line)
		}
	}
	return left.String()
}

// withoutPolls leaves out the failures of those who look at containers in the
// background, at times just before there is one or just after: CRI once a second,
// containerd when a task is removed.
func withoutPolls(spans []otlprecv.Span) []otlprecv.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s otlprecv.Span) bool {
		poll := strings.HasSuffix(s.Name, "Task/State") || strings.HasSuffix(s.Name, "Task/Stats")
		return poll && slices.Contains([]string{"container not created: not found", "cgroups: cgroup deleted"}, answerOf(s))
	})
}

// answerOf returns what the answer of a call that failed said.
func answerOf(s otlprecv.Span) string {
	if text, ok := s.Attrs["shimtrace.expected.message"].(string); ok {
		return text
	}
	return s.Status.GetMessage()
}
