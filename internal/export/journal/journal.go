package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/private"
)

// Options of a journal. Zero values mean the defaults.
type Options struct {
	// MaxBytes bounds all segments together (default: package defaults; at least two
	// segments). The oldest is removed first.
	MaxBytes int64
	// SegmentBytes is the size at which a segment is closed (at least 4 KiB; default:
	// package defaults). It also bounds a record.
	SegmentBytes int64
	// Shipped says that a shipper empties this journal. Spans that the cap removes
	// before the shipper has read them then count as [losses.JournalFull], otherwise as
	// [losses.Retention].
	Shipped bool
	// StateDir is a directory on another disk, of root only. Counts of dropped spans
	// that Close could not write wait there; without it they are lost.
	StateDir string
	// LockWait is how long an append waits for another process's append before
	// it begins a segment of its own (default 50 ms).
	LockWait time.Duration
}

const (
	minSegmentBytes = 4 << 10
	defaultLockWait = 50 * time.Millisecond

	// maxRecord bounds a written record, however large segments are: the memory of
	// writers and readers depends on it.
	maxRecord = 1 << 20
	// keepBuffer is the largest buffer kept between two appends.
	keepBuffer = 128 << 10
)

func (o *Options) defaults() {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaults.JournalBytes
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaults.SegmentBytes
	}
	o.SegmentBytes = max(o.SegmentBytes, minSegmentBytes)
	o.MaxBytes = max(o.MaxBytes, 2*o.SegmentBytes)
	if o.LockWait == 0 {
		o.LockWait = defaultLockWait
	}
}

// Journal appends to the journal in a directory. It is safe for concurrent use,
// by goroutines and by processes.
type Journal struct {
	dir  string
	opts Options

	losses  losses.Ledger
	lost    map[string]int // taken from losses, not yet written
	carried tally
	// toTargets counts the spans that targets with a name do not get, until lost has the counts.
	toTargets tally
	hanging   atomic.Bool // a call of Within has not returned
	written   atomic.Uint64

	mu      sync.Mutex
	closed  bool
	file    *os.File // the segment last written; nil until the first append
	number  uint64
	buf     []byte
	rotated bool                // a segment was begun since the last eviction
	usages  map[uint64]contents // of sealed segments
}

// errClosed is returned by appends after Close. Their spans are counted nowhere.
var errClosed = errors.New("journal: closed")

// Open creates the directory if need be (mode 0700). It creates no segment: a process
// without spans leaves nothing behind. It refuses a directory that somebody else could
// change.
func Open(dir string, opts Options) (*Journal, error) {
	j := New(dir, opts)
	if err := j.Check(); err != nil {
		return nil, err
	}
	return j, nil
}

// New is Open without touching the directory, for callers that must not wait for a
// hanging disk. Appends fail if the directory is unusable.
func New(dir string, opts Options) *Journal {
	opts.defaults()
	return &Journal{dir: dir, opts: opts, lost: make(map[string]int)}
}

// Check creates and checks the directory as Open does. It may be called at any time.
func (j *Journal) Check() error {
	if err := private.MakeDir(j.dir); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Dir returns the journal's directory.
func (j *Journal) Dir() string { return j.dir }

// AppendSpans appends n spans of one resource and scope, as one record, or as several if they
// are too large for one. They are encoded as elements of a ScopeSpans message's spans, one after
// another; the caller answers for their validity. AppendSpans keeps no part of them. It waits
// only for LockWait and the write itself. When it fails, the journal has counted the spans as
// dropped; the caller must neither count nor append them again.
func (j *Journal) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	if n == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	o, err := newOrigin(resource, scope)
	if err != nil {
		j.lose(losses.WriteFailed, n)
		return fmt.Errorf("journal: marshal a resource: %w", err)
	}
	return errors.Join(j.appendEncoded(o, spans, n), j.flush())
}

// Worth marks a sandbox's spans as worth more than others': they stay longest when the
// journal is full, also when they have been shipped.
func (j *Journal) Worth(sandbox string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	return j.append(KindWorth, SourceOf(sandbox), 0, j.room(0))
}

// Losses returns the tally for spans lost before or after they reached the journal. The
// next append, Flush or Close writes the counts.
func (j *Journal) Losses(of losses.Whose) *losses.Tally { return j.losses.Of(of) }

// Written returns how many spans this process has appended.
func (j *Journal) Written() uint64 { return j.written.Load() }

// Flush writes pending drop counts.
func (j *Journal) Flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	return j.flush()
}

// Close writes pending drop counts and closes the journal. It leaves the counts that it cannot
// write to other processes, in Options.StateDir.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	err := j.flush()
	if err != nil {
		err = errors.Join(err, j.leave())
	}
	j.closed = true
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
	return err
}

func (j *Journal) maxPayload() int {
	return int(min(maxRecord, j.opts.SegmentBytes-segmentHeaderLen)) - recordHeaderLen
}

func (j *Journal) lose(r losses.Reason, spans int) { j.losses.Of(losses.Ours).Add(r, spans) }

// flush appends the loss counts. Those that cannot be written are kept for the next
// time.
func (j *Journal) flush() error {
	j.takeLost()
	err := j.appendCounts(KindDrops, j.lost)
	if err == nil {
		clear(j.lost)
	}
	carried := j.carried.take()
	cerr := j.appendCounts(KindCarried, carried)
	if cerr != nil {
		j.carried.addAll(carried)
	}
	if err = errors.Join(err, cerr); err == nil {
		j.takeLeft()
	}
	return err
}

// takeLost moves the counts of losses to j.lost.
func (j *Journal) takeLost() {
	j.losses.Take(j.lost)
	for reason, spans := range j.toTargets.take() {
		j.lost[reason] += spans
	}
}

func (j *Journal) appendCounts(kind Kind, m map[string]int) error {
	if len(m) == 0 {
		return nil
	}
	payload, spans := appendDrops(j.room(0), m)
	return j.append(kind, 0, spans, payload)
}

// room returns the buffer, empty except for room for the headers, with capacity for a
// payload of size bytes.
func (j *Journal) room(size int) []byte {
	const head = segmentHeaderLen + recordHeaderLen
	if cap(j.buf) < head+size {
		j.buf = make([]byte, 0, head+size)
	}
	b := j.buf[:head]
	if cap(b) > keepBuffer {
		j.buf = nil
	}
	return b
}

func newMarker() (m marker) {
	rand.Read(m[:]) // never fails, as crypto/rand says
	return m
}
