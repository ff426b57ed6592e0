package receiver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Options are what a Receiver is made of. Collation, Client, Losses and Flush are
// required, the rest has the defaults named at each field.
type Options struct {
	// Forwarder bounds what the guests may send.
	Forwarder forwarder.Options
	// Collation returns how the spans of a VM get their place; their Sink is the
	// Receiver's, and Drop is told after it. A VM that is refused is read all the same,
	// and its spans are counted as lost for that reason. It is called once for each VM.
	Collation func(from listen.Origin) (o collate.Options, refused losses.Reason)
	// KeepTraceIDs leaves spans in the traces that the guest says they are in. It is
	// for guests that are trusted: such a span may turn up in anybody's trace.
	KeepTraceIDs bool
	// MaxVMs bounds the VMs that are told apart at a time, those of Sandbox
	// included; the spans of more are lost. Default 64.
	MaxVMs int
	// Journal takes the spans.
	Journal Journal
	// Warn is told what goes wrong; nothing ends by it. Default: nobody asks.
	Warn func(error)
}

// Journal is where spans go.
type Journal interface {
	// AppendSpans takes a batch as collate.Sink does, and answers for those that it
	// fails to take.
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
	// Losses counts spans that were lost before. Flush writes the counts; what was lost
	// since the last time is forgotten if the process is killed.
	Losses(of losses.Whose) *losses.Tally
	Flush() error
}

// Receiver receives the spans of any number of VMs. It is safe for concurrent use.
type Receiver struct {
	opts      Options
	forwarder *forwarder.Forwarder

	mu    sync.Mutex
	vms   map[vmKey]*vm
	count count

	losses *losses.Tally
}

// vmKey is a VM's sandbox, or for want of it the CID.
type vmKey struct {
	sandbox string
	cid     uint32
}

func keyOf(from listen.Origin) vmKey {
	if from.Sandbox != "" {
		return vmKey{sandbox: from.Sandbox}
	}
	return vmKey{cid: from.CID}
}

// vm is one VM's share.
type vm struct {
	*collate.Collator
	from  listen.Origin
	kept  bool                // beyond its connections
	conns map[uint64]struct{} // that have sent spans and are open
}

var _ forwarder.Sink = (*Receiver)(nil)

// New returns a Receiver, which takes connections until Close.
func New(opts Options) *Receiver {
	opts.MaxVMs = cmp.Or(opts.MaxVMs, 64)
	if opts.Warn == nil {
		opts.Warn = func(error) {}
	}
	r := &Receiver{opts: opts, vms: make(map[vmKey]*vm), losses: losses.New(opts.Journal.Losses(losses.Agents))}
	r.opts.Forwarder.Losses = r.losses
	r.forwarder = forwarder.New(r, r.opts.Forwarder)
	return r
}

// Take takes over a connection; it is a listen.Handler.
func (r *Receiver) Take(conn listen.Conn, from listen.Origin) { r.forwarder.Take(conn, from) }

// Sandbox returns the collator of a sandbox's VM, which from now on lasts until
// Close: for who tells it of the sandbox's calls. It is nil if Collation refuses
// the sandbox or there are too many VMs.
func (r *Receiver) Sandbox(id string) *collate.Collator {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, _ := r.vm(listen.Origin{Sandbox: id})
	if v == nil {
		return nil
	}
	v.kept = true
	return v.Collator
}

// vm returns a VM's share, made now if there is none yet, or says why it has none.
// The caller holds the lock.
func (r *Receiver) vm(from listen.Origin) (v *vm, refused losses.Reason) {
	key := keyOf(from)
	if v := r.vms[key]; v != nil {
		return v, 0
	}
	if len(r.vms) >= r.opts.MaxVMs {
		return nil, losses.VMs
	}
	o, refused := r.opts.Collation(from)
	if refused != 0 {
		return nil, refused
	}
	o.Sink, o.Drop = r.send, r.dropped(o.Drop)
	v = &vm{Collator: collate.New(o), from: from, conns: make(map[uint64]struct{})}
	r.vms[key] = v
	return v, 0
}

// Span implements forwarder.Sink.
func (r *Receiver) Span(conn forwarder.ConnInfo, span *span.Span) {
	r.mu.Lock()
	v, refused := r.vm(conn.Origin)
	if v != nil {
		v.conns[conn.ID] = struct{}{}
	}
	r.mu.Unlock()
	if v == nil {
		r.losses.Add(refused, 1)
		return
	}
	if r.opts.KeepTraceIDs {
		v.AddTrace(span.TraceID)
	}
	v.Add(span)
}

// Closed implements forwarder.Sink.
func (r *Receiver) Closed(conn forwarder.ConnInfo, _ error) {
	r.mu.Lock()
	v := r.vms[keyOf(conn.Origin)]
	if v != nil {
		delete(v.conns, conn.ID)
		if len(v.conns) > 0 {
			v = nil
		} else if !v.kept {
			delete(r.vms, keyOf(conn.Origin))
		}
	}
	r.mu.Unlock()
	if v != nil {
		v.AgentEnded()
	}
}

// send is the collators' sink.
func (r *Receiver) send(resource *resourcepb.Resource, scope string, spans []byte, n int) {
	defer r.survive(n)
	// It bounds its own time.
	if err := r.opts.Journal.AppendSpans(resource, scope, spans, n); err != nil {
		r.count.untaken.Add(uint64(n)) // it counts why
		r.opts.Warn(err)
		return
	}
	r.count.sent.Add(uint64(n))
}

// survive is deferred to what may fail on spans, so many that are lost then.
func (r *Receiver) survive(spans int) {
	if p := recover(); p != nil {
		r.losses.Add(losses.Panic, spans)
		r.opts.Warn(fmt.Errorf("panic, which costs spans: %v\n%s", p, debug.Stack()))
	}
}

// tick is how often spans that wait are looked at, and losses told; idleTick is the
// same while none arrive and none wait.
const (
	tick     = 500 * time.Millisecond
	idleTick = 2 * time.Second
)

// Run sees to spans that wait, and writes of those that were lost, until ctx is done.
func (r *Receiver) Run(ctx context.Context) {
	next := time.NewTimer(tick)
	defer next.Stop()
	var seen uint64 // spans, until the last tick
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			added, held := r.work()
			if added == seen && held == 0 {
				next.Reset(idleTick)
			} else {
				next.Reset(tick)
			}
			seen = added
			r.each((*collate.Collator).Tick)
			if err := r.opts.Journal.Flush(); err != nil {
				r.opts.Warn(err)
			}
		}
	}
}

// work returns how many spans have arrived, and how many wait.
func (r *Receiver) work() (added uint64, held int) {
	r.each(func(c *collate.Collator) {
		s := c.Stats()
		added, held = added+s.Added, held+s.Held
	})
	return added, held
}

func (r *Receiver) each(f func(*collate.Collator)) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.vms))
	r.mu.Unlock()
	for _, v := range all {
		r.forwarder.Metered(v.from, func() { r.guard(func() { f(v.Collator) }) })
	}
}

// guard calls f. Whose spans it fails on, and on how many, is not known.
func (r *Receiver) guard(f func()) {
	defer r.survive(1)
	f()
}

// Close reads what there is to read and sends all that waits. When ctx is done before that, the rest is lost and the error says so. Run
// has returned before; nothing is sent afterwards.
func (r *Receiver) Close(ctx context.Context) error {
	err := r.forwarder.Close(ctx)
	r.each((*collate.Collator).Ended)
	return err
}
