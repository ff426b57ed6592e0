package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// memory is what of the relay itself outlives the process: a text that is replaced as a
// whole, and numbers of spans. It is a memfd: a page with the numbers, and two halves for
// the text, of which the one that was written last as a whole is the text.
type memory struct {
	file *os.File
	page []byte

	mu  sync.Mutex
	seq uint64 // of the text
}

const (
	pageSize = 4096
	// maxText bounds the text in bytes; the halves are that far apart.
	maxText = 16 << 20
	// textHead is in front of a text: its number, length and checksum.
	textHead = 8 + 4 + 4
)

// errNoText says that a memory has no text.
var errNoText = errors.New("relay's own memory: nothing whole is in it")

func newMemory() (*memory, error) {
	f, err := host.Memory("relay", pageSize+2*maxText, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	if err != nil {
		return nil, fmt.Errorf("relay's own memory: %w", err)
	}
	return mapMemory(f)
}

// mapMemory takes f over, also if it fails.
func mapMemory(f *os.File) (*memory, error) {
	st, err := f.Stat()
	if err == nil && st.Size() < pageSize {
		err = errors.New("it is too short")
	}
	if err == nil {
		// Whoever else has it must not take its pages away.
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
		if errors.Is(err, unix.EPERM) {
			err = nil // it is sealed
		}
	}
	var page []byte
	if err == nil {
		page, err = unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("relay's own memory: %w", err)
	}
	return &memory{file: f, page: page}, nil
}

// waiting is the number of spans that have ended and are not in the journal.
func (m *memory) waiting() *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&m.page[0])) }

// held is the number of the agent's and the runtime's spans that wait for others.
func (m *memory) held() *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&m.page[8])) }

// uncounted is the number of spans that were lost with another process, and that the
// journal has not counted yet. They are shimtrace's own spans, or the agent's and the
// runtime's.
func (m *memory) uncounted(w losses.Whose) *atomic.Int64 {
	if w == losses.Ours {
		return (*atomic.Int64)(unsafe.Pointer(&m.page[16]))
	}
	return (*atomic.Int64)(unsafe.Pointer(&m.page[24]))
}

// lose makes uncounted what waited in the process before this one, and was lost with it. If
// this process dies in the middle, the spans are counted twice rather than never.
func (m *memory) lose() {
	for from, to := range map[*atomic.Int64]*atomic.Int64{m.waiting(): m.uncounted(losses.Ours), m.held(): m.uncounted(losses.Agents)} {
		to.Add(max(0, from.Load()))
		from.Store(0)
	}
}

// Write replaces the text. It implements io.Writer for an encoder that writes once.
func (m *memory) Write(text []byte) (int, error) {
	if len(text) > maxText-textHead {
		return 0, fmt.Errorf("relay's own memory: a text of %d bytes is too long", len(text))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var head [textHead]byte
	binary.LittleEndian.PutUint64(head[:], m.seq+1)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(text)))
	binary.LittleEndian.PutUint32(head[12:], checksum(head[:], text))
	at := m.offset(m.seq + 1)
	if _, err := m.file.WriteAt(text, at+textHead); err != nil {
		return 0, fmt.Errorf("relay's own memory: %w", err)
	}
	if _, err := m.file.WriteAt(head[:], at); err != nil {
		return 0, fmt.Errorf("relay's own memory: %w", err)
	}
	m.seq++
	return len(text), nil
}

// read returns the text.
func (m *memory) read() (text []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range uint64(2) {
		head := make([]byte, textHead)
		if _, err := m.file.ReadAt(head, m.offset(n)); err != nil {
			return nil, fmt.Errorf("relay's own memory: %w", err)
		}
		seq, size := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint32(head[8:])
		if seq <= m.seq || seq%2 != n || size > maxText-textHead {
			continue
		}
		b := make([]byte, textHead+int(size))
		if _, err := m.file.ReadAt(b, m.offset(n)); err != nil {
			return nil, fmt.Errorf("relay's own memory: %w", err)
		}
		if checksum(b, b[textHead:]) == binary.LittleEndian.Uint32(b[12:]) {
			text, m.seq = b[textHead:], seq
		}
	}
	if text == nil {
		return nil, errNoText
	}
	return text, nil
}

func (m *memory) offset(seq uint64) int64 { return pageSize + int64(seq%2)*maxText }

// checksum is that of a text and its head, but for the checksum itself.
func checksum(head, text []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(head[:12]), crc32.IEEETable, text)
}
