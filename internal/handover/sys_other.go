//go:build !linux

package handover

import (
	"errors"
	"os"
	"syscall"
)

func create(int64) (*os.File, error)           { return nil, errors.ErrUnsupported }
func sized(*os.File, int64) error              { return errors.ErrUnsupported }
func mapFile(*os.File, int) ([]byte, error)    { return nil, errors.ErrUnsupported }
func unmap([]byte) error                       { return errors.ErrUnsupported }
func punch([]byte) error                       { return errors.ErrUnsupported }
func recvmmsg(uintptr, *message) syscall.Errno { return syscall.ENOSYS }
func sendmmsg(uintptr, *message) syscall.Errno { return syscall.ENOSYS }
func pread(int, []byte) (int, error)           { return 0, errors.ErrUnsupported }
