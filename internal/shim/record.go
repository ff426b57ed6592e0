package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// recording is what a command that containerd waits for would have in the trace. The
// command does not write to the journal itself: a disk that hangs would keep it from
// ending, and containerd from going on, for ever. A relay process does, which nobody
// waits for.
type recording struct {
	// Who is the identity: the bundle may be gone.
	Who       telemetry.Identity `json:"who"`
	Container string             `json:"container"`

	State  state.State  `json:"state"`
	Timing state.Timing `json:"timing"`
	// Response is what the inner shim's delete has printed; Gone is the state of a
	// relay that died.
	Response []byte       `json:"response,omitempty"`
	Gone     *state.State `json:"gone,omitempty"`
	// Failure is why the inner shim did not start, which ends the sandbox trace.
	Failure string `json:"failure,omitempty"`
}

// maxResponse bounds what is passed on of the inner shim's output. A DeleteResponse
// has some twenty bytes.
const maxResponse = 4 << 10

// recordTime is how long a command waits for its recording to be in the journal.
const recordTime = 500 * time.Millisecond

func newRecording(who telemetry.Identity, container string, st state.State, t state.Timing) *recording {
	who.Notes = who.Notes.Known()
	return &recording{Who: who, Container: container, State: st, Timing: t}
}

func (r *recording) identity() telemetry.Identity {
	who := r.Who
	who.Run = telemetry.RunOf(r.State.Trace.SpanContext(), r.State.Cause.SpanContext())
	return who
}

// emit makes the spans.
func (r *recording) emit(tracer trace.Tracer) {
	about := telemetry.ContainerAttributes(r.Container, r.Who.Notes.Container())
	if r.Failure == "" {
		recordDelete(tracer, &r.State, about, r.Timing, r.Response, r.Gone)
		return
	}
	recordFailedStart(tracer, &r.State, about, r.Timing, r.Failure)
}

// recordFailedStart makes the trace of a sandbox whose inner shim would not start.
func recordFailedStart(tracer trace.Tracer, st *state.State, about []attribute.KeyValue, t state.Timing, failure string) {
	telemetry.Emit(telemetry.Remote(st.Trace.SpanContext()), tracer, t, nil, about...)
	telemetry.EmitRoot(tracer, st, t.End, failure)
}

// record has the relay process make the spans, and waits for that for a while. The
// process goes on by itself, whatever the outcome.
func (s *standby) record(r *recording) error {
	if s == nil {
		return errors.New("there is no process to record it")
	}
	defer s.conn.Close()
	r.Response = r.Response[:min(len(r.Response), maxResponse)]
	if err := s.conn.SetDeadline(time.Now().Add(recordTime)); err != nil {
		return err
	}
	if err := json.NewEncoder(s.conn).Encode(assignment{Record: r}); err != nil {
		return fmt.Errorf("tell a process what to record: %w", err)
	}
	var done report
	if err := json.NewDecoder(s.conn).Decode(&done); err != nil {
		return fmt.Errorf("not recorded within %v, it may be later: %w", recordTime, err)
	}
	if done.Error != "" {
		return errors.New(done.Error)
	}
	return nil
}

// maxRecorders bounds the processes that record at a time: while the journal's disk
// hangs, none of them ends. slotTime is how long one waits for the others.
const (
	maxRecorders = 8
	slotTime     = 5 * time.Second
)

// recorderSlot returns when this process is one of at most maxRecorders.
func recorderSlot(stateDir string, wait time.Duration) (release func(), err error) {
	path := filepath.Join(stateDir, "record.lock")
	if err := private.MakeDir(stateDir); err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		for i := range maxRecorders {
			lock, err := host.LockFile(path+strconv.Itoa(i), unix.LOCK_EX, 0)
			if err == nil {
				return func() { lock.Close() }, nil
			}
			if !errors.Is(err, host.ErrLocked) {
				return nil, err
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%d processes have been at it for %v: %w", maxRecorders, wait, journal.ErrHangs)
		}
	}
}

// make writes the spans to the journal, in a process that does nothing else.
func (r *recording) make(cfg config.Config, log *slog.Logger) error {
	release, err := recorderSlot(cfg.Relay.StateDir, slotTime)
	if err != nil {
		return err
	}
	defer release()
	tel, err := telemetry.Open(cfg, r.identity(), log, nil)
	if err != nil {
		return err
	}
	r.emit(tel.Tracer)
	tel.Close(log, 0)
	return nil
}
