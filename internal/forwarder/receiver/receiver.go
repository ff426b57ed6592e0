package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Batch is a part of a post: spans of one service.
type Batch struct {
	// Service is the program's name for itself, at most 256 bytes of UTF-8.
	Service string
	// Data is a valid TracesData message with Spans spans. It is a view into the post.
	Data  []byte
	Spans int
}

// Post is what one program has sent in one request.
type Post struct {
	From    Peer
	Batches []Batch // at least one

	done func(error)
}

// Done says that the post's batches are not needed any more: they are taken, or could
// not be taken for the reason given, so that the program is to send them again.
func (p *Post) Done(err error) { p.done(err) }

// Sink takes a post and calls its Done once, soon, from any goroutine. It must not
// block.
type Sink func(*Post)

// Receiver serves programs that export OTLP. Close ends it.
type Receiver struct {
	opts    Options
	sink    Sink
	server  *http.Server
	room    *post.Room
	pace    *pace
	reports post.Reports
}

// New returns a Receiver that passes posts to sink.
func New(sink Sink, opts Options) *Receiver {
	r := &Receiver{opts: opts.withDefaults(), sink: sink}
	r.reports.To = r.opts.Report
	r.room = post.NewRoom(r.opts.RoomBytes)
	r.pace = newPace(r.opts.BytesPerSecond, r.opts.MaxBody)
	r.server = post.NewServer(http.HandlerFunc(r.serve), r.opts.ReadTimeout)
	r.server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, &connection{peer: peerOf(c), pace: r.pace.part()})
	}
	return r
}

// connection is what is known of the connection that a request came by.
type connection struct {
	peer Peer
	pace *pace
}

type connectionKey struct{}

func connectionOf(req *http.Request) *connection {
	return req.Context().Value(connectionKey{}).(*connection)
}

// Serve serves connections of l until Close or until l is closed, then returns nil. It
// closes l. A Receiver may serve several listeners.
func (r *Receiver) Serve(l net.Listener) error {
	limited := post.Limited(l, r.opts.MaxConnections, &r.opts.Counters.TurnedAway)
	err := r.server.Serve(limited)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve OTLP on %s: %w", l.Addr(), err)
}

// Close takes no more posts and finishes those under way. If ctx ends first, Close
// closes the connections and returns ctx's error.
func (r *Receiver) Close(ctx context.Context) error {
	if err := r.server.Shutdown(ctx); err != nil {
		r.server.Close()
		return fmt.Errorf("close the OTLP endpoint: %w", err)
	}
	return nil
}

// format is a form of OTLP's messages.
type format uint8

const (
	asProtobuf format = iota
	asJSON
)

// take checks a post's body and passes it to the Sink. The body's capacity is reserved,
// and released in time. rejected is how many spans are lost because they are invalid.
func (r *Receiver) take(from *connection, body []byte, is format) (rejected int, refused *post.Refusal) {
	reserved := cap(body)
	release := func() { r.room.Release(reserved) }
	from.pace.spend(max(len(body), leastCharge) * is.charge())
	if is == asJSON {
		message, refusal := r.fromJSON(body)
		if refusal != nil {
			release()
			return 0, refusal
		}
		body = message // smaller than the JSON it was
	}
	c := r.opts.Counters
	p, err := parse(body)
	if err != nil {
		release()
		return 0, &post.Refusal{Reason: losses.MalformedPost, Status: http.StatusBadRequest, Text: err.Error()}
	}
	if len(p.batches) == 0 {
		release()
		return r.invalid(p), nil
	}
	taken := make(chan error, 1)
	r.sink(&Post{From: from.peer, Batches: p.batches, done: func(err error) {
		release()
		taken <- err
	}})
	timer := time.NewTimer(r.opts.TakeTimeout)
	defer timer.Stop()
	select {
	case err = <-taken:
	case <-timer.C:
		err = errNotTaken
	}
	if err != nil {
		return 0, postponed(err)
	}
	c.Posts.Add(1)
	c.Spans.Add(uint64(p.spans))
	return r.invalid(p), nil
}

// invalid counts a post's invalid spans, once the post is not sent again, and returns their
// number.
func (r *Receiver) invalid(p *parsed) (spans int) {
	for reason, n := range p.lost {
		r.opts.Counters.Losses.Add(reason, n)
		r.reports.Tell(reason, fmt.Errorf("take spans in OTLP: %d are invalid: %s", n, reason.Meaning()))
		spans += n
	}
	return spans
}

var errNotTaken = errors.New("spans are not taken at present, try again later")

// postponed refuses a post that the program is to send again.
func postponed(err error) *post.Refusal {
	return &post.Refusal{Reason: losses.BusyPost, Status: http.StatusServiceUnavailable, Text: err.Error()}
}

// refuse counts a refused post. It is lost unless its program sends it again.
func (r *Receiver) refuse(refused *post.Refusal) {
	if again(refused) {
		r.opts.Counters.Postponed.Add(1)
		return
	}
	r.opts.Counters.Losses.Add(refused.Reason, 1)
	r.reports.Tell(refused.Reason, fmt.Errorf("take spans in OTLP: %w", refused))
}

// again reports whether exporters repeat a post that is refused like this.
func again(r *post.Refusal) bool {
	return r.Status == http.StatusServiceUnavailable || r.Status == http.StatusTooManyRequests
}
