package keeper

import (
	"os"

	"github.com/shimtrace/shimtrace/internal/host"
)

// maxLeft bounds the files left at once.
const maxLeft = 8

// leave sends files to the process that has answered a ping.
func (p *pinged) leave(files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	return host.SendDescriptors(p.conn, []byte{'\n'}, fds)
}

// refuse shuts down sockets that nobody serves: waiting clients are reset and new ones
// refused, whatever processes have the sockets open.
func refuse(files []*os.File) {
	for _, f := range files {
		_ = host.ShutDown(f)
	}
}
