package state

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
)

// File is the name, in a container's bundle, of what its start leaves for
// the relay and for delete.
const File = "shimtrace.json"

// Version is the version of the state's format. A state of another version
// belongs to a shimtrace that was replaced under running containers: it is left
// alone.
const Version = 1

// maxState bounds a state file, in bytes.
const maxState = 1 << 20

// State is what the processes around one sandbox share: it is written by start
// beside the relay's socket and into the container's bundle, by the relay into
// the bundles of containers that have no start of their own.
type State struct {
	Version int `json:"version"`
	// Trace is the sandbox trace: its id and the root span's. Where tracing is dynamic
	// nothing is in it, but it tells one sandbox from another of the same id.
	Trace TraceContext `json:"trace"`
	// Dynamic: tracing is switched on and off. Window is the last time that it was on.
	Dynamic bool    `json:"dynamic,omitempty"`
	Window  *Window `json:"window,omitempty"`
	// Cause is the context of what caused the pod, if its annotations have one.
	Cause TraceContext `json:"cause,omitzero"`
	// Started is when the root span starts.
	Started time.Time `json:"started"`
	// Uptime is how long the host was up by then, 0 if that is not known.
	Uptime time.Duration `json:"uptime,omitempty"`
	// RootEnd is when the first task ran, which ends the root span; RootEnded
	// tells that the span has been exported.
	RootEnd   time.Time `json:"root_end,omitzero"`
	RootEnded bool      `json:"root_ended,omitempty"`

	Sandbox   string `json:"sandbox"`
	Namespace string `json:"namespace"`
	Inner     string `json:"inner"`        // the inner shim's path
	InnerSock string `json:"inner_socket"` // the inner shim's socket, a path
	InnerPID  int    `json:"inner_pid"`    // the process that made that socket
	RelaySock string `json:"relay_socket"`
	// Pod and PodNamespace are what a person calls the sandbox by.
	Pod          string `json:"pod,omitempty"`
	PodNamespace string `json:"pod_namespace,omitempty"`
	PodUID       string `json:"pod_uid,omitempty"`

	// Deleted tells that the container whose bundle this is in was deleted as it should
	// be, by the call of that name.
	Deleted bool `json:"deleted,omitempty"`

	// Pending are the spans of a start that are exported by whoever comes to know
	// which trace they belong to: the relay at the container's Create.
	Pending []Timing `json:"pending,omitempty"`
}

// TraceContext is a span context that survives in a file.
type TraceContext struct {
	TraceID string `json:"trace_id"`
	SpanID  string `json:"span_id"`
	Sampled bool   `json:"sampled"`
}

func (t TraceContext) SpanContext() trace.SpanContext {
	tid, _ := trace.TraceIDFromHex(t.TraceID)
	sid, _ := trace.SpanIDFromHex(t.SpanID)
	var flags trace.TraceFlags
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: tid, SpanID: sid, TraceFlags: flags.WithSampled(t.Sampled), Remote: true,
	})
}

func NewTraceContext(sc trace.SpanContext) TraceContext {
	return TraceContext{TraceID: sc.TraceID().String(), SpanID: sc.SpanID().String(), Sampled: sc.IsSampled()}
}

// CauseContext is NewTraceContext for a context that may be invalid.
func CauseContext(sc trace.SpanContext) (t TraceContext) {
	if sc.IsValid() {
		t = NewTraceContext(sc)
	}
	return t
}

// Read reads a state file. It does not follow a symbolic link at path.
func Read(path string) (*State, error) {
	text, err := private.Read(path, maxState)
	if err != nil {
		return nil, err
	}
	var st State
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if st.Version != Version {
		return nil, fmt.Errorf("read %s: version %d, this is version %d", path, st.Version, Version)
	}
	if !st.Trace.SpanContext().IsValid() {
		return nil, fmt.Errorf("read %s: no valid span context", path)
	}
	return &st, nil
}

// LeaveInner leaves in the bundle of a container that is not traced which inner shim
// was started, if only the configuration knows that: it may be another one, or broken,
// when the container is deleted.
func LeaveInner(bundle string, cfg config.Config, inner string) error {
	if cfg.Shim == "" {
		return nil
	}
	st := State{Inner: inner} // of no version: there is nothing else in it
	return st.Write(filepath.Join(bundle, File))
}

// StartedInner returns the inner shim that a bundle's state names, "" if none does. It
// takes a state of any version.
func StartedInner(bundle string) string {
	f, err := private.Open(filepath.Join(bundle, File), os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	var st struct {
		Inner string `json:"inner"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxState)).Decode(&st); err != nil || !filepath.IsAbs(st.Inner) {
		return ""
	}
	return st.Inner
}

// Write replaces the state file at path.
func (st *State) Write(path string) error {
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return ReplaceFile(path, text, 0o600)
}

// halfOf is where a file is written before it takes its name.
func halfOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".shimtrace")
}

// ReplaceFile writes a file so that a reader sees the old or the new content.
func ReplaceFile(path string, content []byte, mode os.FileMode) error {
	if err := private.Replace(path, halfOf(path), content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// clockSlack is what two clocks that are read one after the other may differ by.
const clockSlack = time.Second

// Within returns a time of the sandbox's life that was read from the host's clock. If
// that was set since the sandbox started, the time may lie before the start or later
// than now; then it is as much later than the start as the host has been up longer.
func (st *State) Within(at time.Time) time.Time {
	var passed time.Duration
	if st.Uptime > 0 {
		passed = max(host.Uptime()-st.Uptime, 0)
	}
	if at.Before(st.Started) || st.Uptime > 0 && at.Sub(st.Started) > passed+clockSlack {
		return st.Started.Add(passed)
	}
	return at
}
