// Package ship drains the journal to a backend, a target: it reads what all processes on
// the host append, uploads it in order, and remembers its position. Several targets have a
// [Shipper] each, and share nothing but the [Choice] of what is shipped.
//
// Delivery is at least once: the cursor moves after an upload has succeeded, so a crash
// or a lost answer repeats one. An outage loses nothing, however long it lasts; only
// spans that the backend refuses for good, or that the journal's cap removes meanwhile,
// are lost and counted. An upload that the backend refuses or fails on is set aside and
// tried again, whole and in parts, beside the rest.
//
// It is linked only into the operator's tool. The backend is any [otlptrace.Client]; ideally one
// that distinguishes refusals from failures with [RejectedError] and [BusyError].
package ship

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/tail"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Shipper ships one journal to one target. Zero values of the options mean the defaults.
type Shipper struct {
	// Dir is the journal's directory, and Target the name under which the position in it
	// is kept. Client is the backend; Run starts and stops it.
	Dir, Target string
	Client      otlptrace.Client

	// Once ends Run at the end of the journal instead of waiting for more.
	Once bool
	// Idle ends Run when nothing was appended for that long; 0: never.
	Idle time.Duration
	// Drain is how long Run goes on once its context has ended (default 5 s).
	Drain time.Duration
	// BatchBytes is the size of the records at which an upload is full (default 1 MiB).
	// An upload exceeds it by at most one record.
	BatchBytes int
	// Linger is how long Run waits after an append, to put the spans of several into
	// one upload (default 100 ms).
	Linger time.Duration
	// MinBackoff and MaxBackoff are the pauses after the first and after many
	// failures (default 500 ms and 30 s), before jitter of half of them.
	MinBackoff, MaxBackoff time.Duration
	// Choice says which sandboxes' spans are shipped; nil ships all.
	Choice *Choice
	// Journal counts the spans that the backend refused; nil: only Status does.
	Journal *journal.Journal
	// Progress is called on every change, never twice at once.
	Progress func(Status)
}

// Status is what a Shipper has done since Run.
type Status struct {
	// Shipped is the number of spans that the backend has taken.
	Shipped int
	// Rejected is the number of spans lost here, by reason.
	Rejected map[losses.Reason]int
	// KeptOut is the number of spans that are not shipped, as Choice says.
	KeptOut int
	// CorruptBytes is the number of bytes of the journal skipped as damaged.
	CorruptBytes int64
	// Err is why the last attempt failed, nil after a success; Retry is when the next
	// one is due.
	Err   error
	Retry time.Time
	// Aside is the number of spans that the backend fails on while it takes others.
	Aside int
	// Notice is the backend's last message about spans that it took, refused or failed
	// on; nil: none.
	Notice error
}

// Run ships until the context ends, the journal is idle, or, with Once, the journal
// ends. It returns [journal.ErrShipped] if another process ships, and the last failure
// if the context ends while the backend takes nothing; the rest of the journal is for
// the next Run. It must be called only once.
func (s *Shipper) Run(ctx context.Context) error {
	lock, err := journal.LockShipping(s.Dir, s.Target)
	if err != nil {
		return err
	}
	defer func() { lock.Close() }()
	if err := s.Client.Start(ctx); err != nil {
		return fmt.Errorf("ship: start of the client: %w", err)
	}
	d := newDelivery(ctx, s)
	defer d.close()
	if d.choice = s.Choice; d.choice == nil {
		d.choice = NewChoice(s.Dir, tail.Options{})
	}
	for {
		err := d.follow()
		lock.Close()
		if err != nil || s.Once || ctx.Err() != nil || !Pending(s.Dir, s.Target) {
			return err
		}
		// A process may have appended, and seen the lock held, just before it was
		// released.
		if lock, err = journal.LockShipping(s.Dir, s.Target); err != nil {
			if errors.Is(err, journal.ErrShipped) {
				return nil
			}
			return err
		}
	}
}

// Pending reports whether the journal in a directory has records behind a target's cursor.
func Pending(dir, target string) bool {
	c, _ := journal.ReadCursor(dir, target)
	f := journal.Follow(dir, c)
	defer f.Close()
	_, err := f.Next()
	return err == nil
}

// delivery is the state of one Run.
type delivery struct {
	*Shipper
	ctx     context.Context // ends when Run should
	work    context.Context // ends Drain later; uploads live in it
	cancel  context.CancelFunc
	backoff *backoff.ExponentialBackOff
	watch   *watch
	choice  *Choice
	chosen  *tail.Sampler
	corrupt int64         // of followers before the present one
	handed  chan struct{} // woken when something is set aside
	proof   chan struct{} // woken when the backend takes something
	settled chan struct{} // woken when less is set aside

	beyond *backoff.ExponentialBackOff // the pauses of all that is set aside together

	mu        sync.Mutex
	status    Status
	cursor    journal.Cursor  // without what is held or set aside
	unread    []journal.Range // held records that have not been read yet, or could not be
	set       []*aside        // in the order in which it is tried
	paused    time.Time       // until when nothing set aside is tried
	inARow    int             // uploads set aside that failed since one was taken
	successes int             // uploads that were taken
}

func newDelivery(ctx context.Context, s *Shipper) *delivery {
	orDefault(&s.Drain, 5*time.Second)
	orDefault(&s.Linger, 100*time.Millisecond)
	orDefault(&s.MinBackoff, 500*time.Millisecond)
	orDefault(&s.MaxBackoff, 30*time.Second)
	orDefault(&s.BatchBytes, 1<<20)
	interval := tick
	if s.Idle > 0 {
		interval = min(interval, s.Idle)
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(s.Drain):
			cancel()
		case <-work.Done():
		}
	})
	return &delivery{
		Shipper: s,
		ctx:     ctx,
		work:    work,
		cancel:  func() { stop(); cancel() },
		backoff: s.newBackoff(),
		beyond:  s.newBackoff(),
		watch:   newWatch(s.Dir, interval),
		handed:  make(chan struct{}, 1),
		proof:   make(chan struct{}, 1),
		settled: make(chan struct{}, 1),
		status:  Status{Rejected: make(map[losses.Reason]int)},
	}
}

// newBackoff returns the pauses after failures, half of each random.
func (s *Shipper) newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = s.MinBackoff, s.MaxBackoff
	b.Multiplier = 2
	b.Reset()
	return b
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// close ends Run's goroutines. The client has a second to close its connections.
func (d *delivery) close() {
	d.cancel()
	d.watch.close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.Client.Stop(ctx)
}

func (d *delivery) draining() bool { return d.ctx.Err() != nil }

// progress reports the status with the last error.
func (d *delivery) progress(err error, retry time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.report(err, retry)
}

func (d *delivery) report(err error, retry time.Time) {
	d.status.Err, d.status.Retry, d.status.Aside = err, retry, d.spansAside()
	if d.Progress != nil {
		st := d.status
		st.Rejected = maps.Clone(st.Rejected)
		d.Progress(st)
	}
}

// reject counts spans that are lost.
func (d *delivery) reject(reason losses.Reason, spans int) {
	if spans <= 0 {
		return
	}
	d.status.Rejected[reason] += spans
	d.lose(reason, spans)
}
