package handover

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// create returns a file in memory whose size nobody can change.
func create(size int64) (*os.File, error) {
	if bits.UintSize != 64 {
		return nil, errors.ErrUnsupported
	}
	return host.Memory("shimtrace-relay", size, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
}

// sized returns why a file is not one in memory that has the given size for good, nil if it
// is.
func sized(f *os.File, size int64) error {
	if bits.UintSize != 64 {
		return errors.ErrUnsupported
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return os.NewSyscallError("fcntl F_GET_SEALS", err)
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return errors.New("its size can change")
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("it has %d bytes, not %d", info.Size(), size)
	}
	return err
}

func mapFile(f *os.File, size int) ([]byte, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // a huge page would be 2 MiB for a few bytes
	}
	return mem, os.NewSyscallError("mmap", err)
}

func unmap(mem []byte) error { return unix.Munmap(mem) }

func pread(fd int, b []byte) (int, error) {
	n, err := unix.Pread(fd, b, 0)
	return n, os.NewSyscallError("pread", err)
}

// punch gives whole pages back.
func punch(mem []byte) error { return unix.Madvise(mem, unix.MADV_REMOVE) }

// Neither of these two waits, so Go's runtime is not told of them. It would have its monitor
// look after them, a thread that sleeps while the process is idle, as a relay is between a
// request and its answer: waking it takes longer than the call.

func recvmmsg(fd uintptr, m *message) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(m)), 1, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

func sendmmsg(fd uintptr, m *message) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(m)), 1, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return errno
}
