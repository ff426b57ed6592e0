package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// ClientOptions say who a relay is.
type ClientOptions struct {
	// Dir is the state directory.
	Dir string
	// Who is the relay.
	Who Registration
	// Successor is the link of a relay that follows another one, nil for others. The guard
	// has what is stored before Register already.
	Successor *Resumption
	// Ensure has a guard started if there is none; it may block.
	Ensure func()
	// Every is how often Ensure is called while all is well, in case the guard hangs.
	Every time.Duration
	// Watched reports whether another relay has looked at the guard in the last Every: then
	// this one looks less often. Nil: none does.
	Watched func() bool
	// VSOCK takes a VM's connection, unread. The CID may be one that nobody has claimed.
	// Nil: the relay takes none.
	VSOCK func(conn *os.File, cid uint32)
	// HandOver has the relay stop, so that another process can go on; see Client. Nil: it
	// cannot.
	HandOver func(ctx context.Context) (goOn func(), err error)
	// Process is told of the processes that Follow asks for, in order; it must not block.
	// Unrecorded is told, again by each guard, why Process will not be told of any. Nil:
	// nobody is.
	Process    func(procevents.Report)
	Unrecorded func(why string)
	// Watching is told by each guard whether changes of the files of WatchFiles will be
	// reported: why is empty if so. It is told as well when that guard is gone. Changed is
	// called for each such change. Neither may block. Nil: nobody is told.
	Watching func(why string)
	Changed  func()
	// Logf is told what hinders, once for each cause.
	Logf func(format string, args ...any)
}

// Entry is what a successor needs: descriptors, with a name.
type Entry struct {
	// Name is at most 128 bytes. Data, of at most 4 KiB, is for the successor.
	Name string
	Kind Kind
	Data []byte
	// Files are at most 8. Depending on Kind they are a listener; two connections and a
	// memory; a connection and a memory; or anything. They are asked for their descriptors
	// again whenever the relay registers.
	Files []syscall.Conn
}

// Client is a relay's link to the guard. It has what the relay stores, and registers
// again when there is another guard. Its methods never wait, and may be called by any
// goroutine. The zero value is without a guard: it remembers everything until Register.
//
// When the operator's tool wants the relay to be another program, HandOver is called.
// It stops the relay where its successor can go on, and returns; then the process ends.
// If the guard does not hear that, goOn is called, and the relay goes on.
type Client struct {
	opts ClientOptions
	stop context.CancelFunc // nil: it has not begun to register
	over chan struct{}

	logged string // by run

	mu      sync.Mutex
	entries []Entry
	claims  []uint32
	follows *followed
	files   []string
	link    *net.UnixConn // nil: unguarded
	left    bool
}

// handOverTime bounds how long a relay may take to stop.
const handOverTime = 2 * time.Second

// Register has the client register from now on, in the background; a successor is registered
// when it returns. It is called once. Of an environment that is too large, only what is known
// to matter goes along.
func (c *Client) Register(opts ClientOptions) {
	if text := strings.Join(opts.Who.Env, ""); len(text) > maxPacket/2 {
		opts.Who.Env = slices.DeleteFunc(slices.Clone(opts.Who.Env), func(kv string) bool {
			return len(kv) > 1<<10 || !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, "SHIMTRACE_") && !strings.HasPrefix(kv, "OTEL_")
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	c.opts, c.stop, c.over = opts, stop, make(chan struct{})
	if opts.VSOCK != nil {
		c.Claim(0)
	}
	// The guard has what was stored until now: what comes later is to be said after this.
	var link *net.UnixConn
	if n := opts.Successor; n != nil && c.register(n.Link) == nil {
		link = n.Link
	}
	go func() {
		defer close(c.over)
		c.run(ctx, link)
	}()
}

// Store gives the guard an entry, in the place of one with the same name. From then on a
// successor can go on with it: so Store is called before the first byte is read.
func (c *Client) Store(e Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return
	}
	c.entries = slices.DeleteFunc(c.entries, func(old Entry) bool { return old.Name == e.Name })
	c.entries = append(c.entries, e)
	c.say(func(fd int) error { return e.send(fd) })
}

// Remove takes an entry back, and shuts its sockets down: to close them is not enough while
// the guard has a copy. So Remove is called before they are closed.
func (c *Client) Remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return
	}
	e := c.entries[i]
	c.entries = slices.Delete(c.entries, i, i+1)
	c.say(func(fd int) error { return sendPacket(fd, message{Type: typeRemove, Name: name}) })
	e.shutDown()
}

// Claim says that the VM with the CID belongs to the relay's sandbox.
func (c *Client) Claim(cid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.claims, cid) {
		return
	}
	c.claims = append(c.claims, cid)
	c.say(func(fd int) error { return sendPacket(fd, message{Type: typeClaim, CID: cid}) })
}

// Guarded reports whether there is a guard that has all that was stored.
func (c *Client) Guarded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link != nil
}

// Leave says that nobody is to follow, and shuts down what is stored. It is the last
// word of a relay that ends in order.
func (c *Client) Leave() {
	c.mu.Lock()
	c.left = true
	c.say(func(fd int) error { return sendPacket(fd, message{Type: typeLeaving}) })
	for _, e := range c.entries {
		e.shutDown()
	}
	c.entries = nil
	c.unguarded()
	c.mu.Unlock()
	if c.stop != nil {
		c.stop()
		<-c.over
	}
}

// say says something if there is a guard; one that does not listen is no guard, and is
// told everything again later. The caller holds the lock.
func (c *Client) say(what func(fd int) error) {
	if c.link != nil && host.Control(c.link, what) != nil {
		c.unguarded()
	}
}

func (c *Client) unguarded() {
	if c.link != nil {
		c.link.Close() // which ends hear
		c.link = nil
	}
}

func (c *Client) log(err error) {
	if text := err.Error(); text != c.logged {
		c.logged = text
		c.opts.Logf("this sandbox ends if its relay dies: %v", err)
	}
}

// Pauses between attempts to register. A guard that has died is followed by another one
// in milliseconds; a host's relays do not all ask at the same moment.
const (
	soon  = 5 * time.Millisecond
	later = 2 * time.Second
	// quietFor is how long it takes until a relay says that it has no guard.
	quietFor = 3 * time.Second
	// refusedPause is how long a relay that the guard does not take waits before it tries
	// again.
	refusedPause = time.Minute
)

// run keeps the relay registered, at first by the link if there is one.
func (c *Client) run(ctx context.Context, link *net.UnixConn) {
	if link != nil {
		c.hear(ctx, link)
	}
	since := time.Now() // it is without a guard
	for pause := soon; ctx.Err() == nil; {
		link, err := dial(c.opts.Dir)
		if err != nil && c.opts.Ensure != nil {
			c.opts.Ensure()
			link, err = dial(c.opts.Dir)
		}
		if err == nil {
			if err = c.register(link); err == nil {
				began := time.Now()
				err = c.hear(ctx, link)
				if since = time.Now(); err == nil && since.Sub(began) > later {
					pause = soon
				}
			}
			link.Close()
		}
		_, refused := err.(refusal)
		if refused {
			pause = refusedPause
		}
		if refused || err != nil && ctx.Err() == nil && time.Since(since) > quietFor {
			c.log(err)
		}
		sleep.For(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, later)
	}
}

// refusal is why the guard does not take the relay.
type refusal string

func (r refusal) Error() string { return "the guard does not take it: " + string(r) }

// register tells a guard everything.
func (c *Client) register(link *net.UnixConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return net.ErrClosed
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("register with the guard: %w", err)
	}
	defer unix.Close(pidfd)
	stored := c.opts.Successor != nil && link == c.opts.Successor.Link
	err = host.Control(link, func(fd int) error {
		widen(fd)
		if err := sendPacket(fd, message{Type: typeRegister, Who: &c.opts.Who}, pidfd); err != nil {
			return err
		}
		for _, e := range c.entries {
			if stored {
				break
			}
			if err := e.send(fd); err != nil {
				return err
			}
		}
		for _, cid := range c.claims {
			if err := sendPacket(fd, message{Type: typeClaim, CID: cid}); err != nil {
				return err
			}
		}
		if c.follows != nil {
			if err := sendPacket(fd, c.follows.message()); err != nil {
				return err
			}
		}
		if len(c.files) > 0 {
			if err := sendPacket(fd, message{Type: typeWatch, Paths: c.files}); err != nil {
				return err
			}
		}
		return sendPacket(fd, message{Type: typeComplete})
	})
	if err != nil {
		return fmt.Errorf("register with the guard: %w", err)
	}
	c.link = link
	return nil
}

// hear listens to the guard until it is gone.
func (c *Client) hear(ctx context.Context, link *net.UnixConn) error {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.link == link {
			c.unguarded()
		}
		if c.opts.Watching != nil {
			c.opts.Watching("its guard is gone, and there is no other one yet")
		}
	}()
	defer context.AfterFunc(ctx, func() { link.Close() })()
	if c.opts.Ensure != nil && c.opts.Every > 0 {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		go c.watch(watching)
	}
	buf := make([]byte, maxSmall)
	for {
		m, files, err := awaitPacket(link, buf)
		if err != nil {
			return nil // another guard is about to be there
		}
		switch {
		case m.Type == typeRefused:
			host.CloseAll(files)
			return refusal(m.Error)
		case m.Type == typeConnection && len(files) == 1 && c.opts.VSOCK != nil:
			c.opts.VSOCK(os.NewFile(uintptr(files[0]), "vsock"), m.CID)
		case m.Type == typeHandOver:
			c.handOver(ctx)
		case m.Type == typeProcess && m.Process != nil && c.opts.Process != nil:
			c.opts.Process(*m.Process)
		case m.Type == typeProcess && m.Error != "" && c.opts.Unrecorded != nil:
			c.opts.Unrecorded(m.Error)
		case m.Type == typeWatching && c.opts.Watching != nil:
			c.opts.Watching(m.Error)
		case m.Type == typeChanged && c.opts.Changed != nil:
			c.opts.Changed()
		default:
			host.CloseAll(files)
		}
	}
}

// seldom is how many times as long as Every a relay's pause gets while others look at the
// guard.
const seldom = 8

// watch looks from time to time whether the guard hangs. Of a host's relays one or two do
// so, and the others wake up rarely.
func (c *Client) watch(ctx context.Context) {
	for pause := c.opts.Every; ; {
		if !sleep.For(ctx, pause/2+rand.N(pause)) {
			return
		}
		if c.opts.Watched != nil && c.opts.Watched() {
			pause = min(2*pause, seldom*c.opts.Every)
			continue
		}
		pause = c.opts.Every
		c.opts.Ensure()
	}
}

// handOver ends the process, unless the relay is to go on.
func (c *Client) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	err := errors.New("this relay cannot")
	goOn := func() {}
	if c.opts.HandOver != nil {
		goOn, err = c.opts.HandOver(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.say(func(fd int) error { return sendPacket(fd, message{Type: typeRefused, Error: err.Error()}) })
		return
	}
	if c.say(func(fd int) error { return sendPacket(fd, message{Type: typeHandedOver}) }); c.link != nil {
		os.Exit(0)
	}
	goOn()
}
