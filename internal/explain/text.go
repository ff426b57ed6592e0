package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Text returns the explanation for people: paragraphs of lines, of any width.
func (e *Explanation) Text() []string {
	if e.Start == nil {
		return []string{"The spans tell of no start: no Create or Start of a container is among them."}
	}
	lines := append([]string{e.headline(), ""}, e.summary()...)
	lines = append(lines, "")
	lines = append(lines, e.stretches()...)
	if len(e.Causes) == 0 {
		return append(lines, "No known cause of a slow start.")
	}
	for i, c := range e.Causes {
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, causeText(&c)...)
	}
	return lines
}

// headline says what was started, and how long it took.
func (e *Explanation) headline() string {
	s := e.Start
	switch {
	case s.Target == nil && s.Story.Startup > 0:
		return fmt.Sprintf("The sandbox started within %s; the Start of its container is not recorded.", waterfall.Duration(s.Story.Startup))
	case s.Target == nil:
		return fmt.Sprintf("No container has started yet; so far %s.", waterfall.Duration(s.Length()))
	case s.Target.Span.Failed:
		return fmt.Sprintf("%s failed to start, after %s.", containerName(s), waterfall.Duration(s.Length()))
	}
	end := "Start was answered"
	if s.Exact {
		end = "its first instruction"
	}
	return fmt.Sprintf("%s started within %s (from %s until %s).", containerName(s), waterfall.Duration(s.Length()), firstOf(s), end)
}

// firstOf says what the start began with.
func firstOf(s *critical.Start) string {
	if n := s.Path[0].Node; n != nil && n.Maker() == waterfall.ByOthers {
		return "the caller's request"
	}
	return "the shim's start"
}

func containerName(s *critical.Start) string {
	id := s.Target.Span.Container()
	if id == s.Story.Sandbox && s.Story.Pod != "" {
		return waterfall.Clean("Sandbox " + s.Story.Name())
	}
	if name := s.Story.ContainerName(id); name != "" {
		return waterfall.Clean("Container " + name)
	}
	return waterfall.Clean("Container " + waterfall.ShortID(id))
}

// maxStretches bounds the stretches in the text; JSON has all.
const maxStretches = 8

// stretches lists the time without spans, and says how much of it has no owner.
func (e *Explanation) stretches() (lines []string) {
	c := &e.Coverage
	if len(c.Stretches) == 0 {
		return []string{"Spans cover all of it.", ""}
	}
	var sum time.Duration
	for _, s := range c.Stretches {
		sum += s.Length()
	}
	unnamed := "none"
	if c.Unnamed > 0 {
		unnamed = fmt.Sprintf("%s (%.1f %%)", waterfall.Duration(c.Unnamed), 100*c.Share())
	}
	lines = append(lines, fmt.Sprintf("Without a span of its own: %s; without a known owner: %s.", waterfall.Duration(sum), unnamed))
	for i, s := range c.Stretches {
		if i == maxStretches {
			lines = append(lines, fmt.Sprintf("  and %d shorter or later ones; --json has all", len(c.Stretches)-i))
			break
		}
		lines = append(lines, "  "+stretchText(&s))
	}
	return append(lines, "")
}

func stretchText(s *Stretch) string {
	owner := "probably " + the(s.Layer)
	switch {
	case s.Cause != "":
		owner = "see " + s.Cause
	case s.Named && !s.Inferred:
		owner = the(s.Layer)
	case !s.Named:
		owner = fmt.Sprintf("in %s's time, unexplained", the(s.Layer))
	}
	text := fmt.Sprintf("%7s %s: %s", waterfall.Duration(s.Length()), s.Where(), owner)
	if s.What != "" {
		text += ", " + s.What
	}
	if e := idleness(s); e != "" {
		text += " (" + e + ")"
	}
	return text
}

// the returns a layer with its article; programs have none.
func the(l critical.Layer) string {
	switch l {
	case critical.Containerd, critical.Ours, critical.Runc:
		return string(l)
	}
	return "the " + string(l)
}

// idleness says whether the span's maker was computing, if it says so.
func idleness(s *Stretch) string {
	if s.Node == nil {
		return ""
	}
	busy, idle := s.Node.Span.Number("busy_ns"), s.Node.Span.Number("idle_ns")
	if busy+idle == 0 {
		return ""
	}
	return fmt.Sprintf("%s was busy for %.0f %% of its time", waterfall.Clean(s.Node.Title()), 100*busy/(busy+idle))
}

func causeText(c *causes.Cause) []string {
	lines := []string{c.Sentence + "."}
	for _, ev := range c.Evidence[:min(len(c.Evidence), maxEvidence)] {
		lines = append(lines, "  seen: "+ev)
	}
	if n := len(c.Evidence) - maxEvidence; n > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", n))
	}
	return append(lines, "  why: "+c.Why+" ("+c.Source+")", "  do: "+c.Remedy, "  rule: "+c.ID)
}

// maxEvidence bounds the lines of evidence of a cause in the text.
const maxEvidence = 5

// String returns Text as one string.
func (e *Explanation) String() string { return strings.Join(e.Text(), "\n") + "\n" }
