package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/receiver"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// programs receives the spans that programs of the host post in OTLP. Those of Kata's
// runtimes go to the relays of their sandboxes, all others to the journal.
type programs struct {
	console  *console.Console
	router   *route.Router
	writer   *writer
	counters receiver.Counters
	receiver *receiver.Receiver
	serving  sync.WaitGroup

	decoding sync.Mutex
	decoder  runtimeDecoder

	mu    sync.Mutex
	over  bool
	open  map[string]net.Listener // by address
	users []uint32                // whom the open ones admit
}

// runtimeDecoder is endpoint's.
type runtimeDecoder interface {
	DecodeOTLP(data []byte) ([]span.Span, error)
	SetSpan(o span.Options)
}

// newPrograms returns programs that pass runtimes' spans to the router. Those spans are
// decoded as decoding says. lost counts all others that are lost.
func newPrograms(cfg config.Config, router *route.Router, decoding endpoint.Options, lost *losses.Tally, c *console.Console) *programs {
	p := &programs{
		console: c, router: router, decoder: endpoint.NewDecoder(decoding),
		writer: newWriter(journal.New(cfg.Journal.Dir, export.JournalOptions(cfg))),
		open:   make(map[string]net.Listener),
	}
	p.counters.Losses = losses.New(lost)
	p.receiver = receiver.New(p.take, receiver.Options{
		MaxBody:        int(cfg.OTLP.BodyBytes),
		BytesPerSecond: int(cfg.OTLP.BytesPerSecond),
		Report:         func(_ losses.Reason, err error) { c.Warn(err) },
		Counters:       &p.counters,
	})
	return p
}

// take implements [receiver.Sink].
func (p *programs) take(post *receiver.Post) {
	rest := slices.DeleteFunc(post.Batches, func(b receiver.Batch) bool { return p.toRelay(post.From, b) })
	if len(rest) == 0 {
		post.Done(nil)
		return
	}
	p.writer.put(entry{rest, post.Done})
}

// toRelay passes a batch to the relay of its sandbox if it is a Kata runtime's, and
// reports whether it is. A runtime is known by its process, whatever it says; of root's
// other processes the service's name tells, as it does for Jaeger's endpoint.
func (p *programs) toRelay(from receiver.Peer, b receiver.Batch) bool {
	if from.User != 0 && int(from.User) != os.Geteuid() || p.router.Snapshot().Relays == 0 {
		return false
	}
	process := host.Process{PID: from.PID, Start: from.Start}
	if !kata.IsRuntimeService(b.Service) && !p.router.IsRuntimeProcess(process) && !(from.Address.IsValid() && p.router.IsRuntime(from.Address)) {
		return false
	}
	p.decoding.Lock()
	defer p.decoding.Unlock()
	spans, err := p.decoder.DecodeOTLP(b.Data)
	if err != nil || len(spans) == 0 {
		return err == nil // it is OTLP: the receiver has checked it
	}
	if from.Address.IsValid() {
		p.router.Take(from.Address, b.Service, spans)
	} else {
		p.router.TakeOf(process, b.Service, spans)
	}
	return true
}

// setSpan says what is kept of runtimes' spans from now on.
func (p *programs) setSpan(o span.Options) {
	p.decoding.Lock()
	defer p.decoding.Unlock()
	p.decoder.SetSpan(o)
}

// follow serves the configured addresses and closes the others. What cannot be opened
// is tried again at the next call.
func (p *programs) follow(cfg config.OTLP) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	changed := !slices.Equal(p.users, cfg.Users)
	p.users = slices.Clone(cfg.Users)
	for at, l := range p.open {
		if changed || !slices.Contains(cfg.Listen, at) {
			l.Close()
			delete(p.open, at)
		}
	}
	for _, at := range cfg.Listen {
		if p.open[at] != nil {
			continue
		}
		l, oerr := p.listen(at, cfg.Users)
		if oerr != nil {
			err = errors.Join(err, fmt.Errorf("OTLP endpoint: %w", oerr))
			continue
		}
		p.open[at] = l
		p.console.Info("programs may send OTLP to %s", at)
		p.serving.Go(func() {
			if err := p.receiver.Serve(l); err != nil {
				p.console.Warn(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.open[at] == l {
				delete(p.open, at)
			}
		})
	}
	return err
}

func (p *programs) listen(at string, users []uint32) (net.Listener, error) {
	if path, ok := config.UnixPath(at); ok {
		return receiver.ListenUnix(path, users, &p.counters.Strangers)
	}
	port, err := route.Open(at)
	if err != nil {
		return nil, err
	}
	return p.router.Admit(port, users...)
}

// close finishes the posts under way. If ctx ends first, their programs send them again.
func (p *programs) close(ctx context.Context) {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.console.Warn(p.receiver.Close(ctx))
	p.serving.Wait()
	p.console.Warn(p.writer.close(diskTime))
}

func (p *programs) status() console.Status {
	posts, lost := p.counters.Posts.Load(), p.counters.Losses.Counts()
	postponed := p.counters.Postponed.Load()
	if posts+postponed == 0 && len(lost) == 0 {
		return console.Status{}
	}
	s := console.Status{Line: console.Spans(int(p.counters.Spans.Load())) + " of other programs"}
	if postponed > 0 {
		s.Line += fmt.Sprintf(", %d posts put off", postponed)
	}
	if s.Losses = console.ByReason("lost", lost); s.Losses != "" {
		s.Line += ", " + s.Losses
	}
	return s
}
