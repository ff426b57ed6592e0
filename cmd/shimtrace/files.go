package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/view"
)

// page writes a story as a page, to the file that --html names or to a temporary one,
// and opens it with --open.
func (h *host) page(c *cli.Command, r *view.Reader, query string, f view.Filter) error {
	file := c.String("html")
	if file == "-" && c.Bool("open") {
		return console.UsageError("--open needs a file: --html FILE, or none for a temporary one")
	}
	if file == "" {
		dir, err := os.MkdirTemp("", "shimtrace-")
		if err != nil {
			return err
		}
		file = filepath.Join(dir, "trace.html")
	}
	if err := h.toFile(file, r, func() error { return r.Page(query, f) }); err != nil {
		return err
	}
	if !c.Bool("open") {
		return nil
	}
	return console.Open(file, h.getenv)
}

// toFile lets write write to a file instead of stdout: a regular one whole or not at
// all. "-" is stdout.
func (h *host) toFile(file string, r *view.Reader, write func() error) error {
	if file == "-" {
		return write()
	}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(file, os.O_WRONLY, 0) // a device or a pipe: it stays
		if err != nil {
			return err
		}
		defer f.Close()
		r.Out = f
		return write()
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), ".shimtrace-*")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return console.UsageError("%s: there is no directory %s", file, filepath.Dir(file))
	}
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // gone after the rename
	defer temporary.Close()
	buffered := bufio.NewWriter(temporary)
	r.Out = buffered
	if err := write(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	size, _ := temporary.Seek(0, io.SeekCurrent)
	if err := os.Rename(temporary.Name(), file); err != nil {
		return err
	}
	fmt.Fprintf(h.stderr, "%s: %d kB\n", file, (size+999)/1000)
	return nil
}
