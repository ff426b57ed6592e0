package rig

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RestartCommand returns a command for the shell that has the rig's containerd restarted,
// in the place of systemd's; for the length of a test.
func (r *Rig) RestartCommand(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(r.Dir, "restart")
	if err != nil {
		t.Fatalf("%v", err)
	}
	fifo := func(name string) *os.File {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatalf("%v", err)
		}
		return f
	}
	asked, answered := fifo("ask"), fifo("answer")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := asked.Read(make([]byte, 1)); err != nil {
				return
			}
			word := "done\n"
			if err := r.Restart(context.Background()); err != nil {
				word = err.Error() + "\n"
			}
			if _, err := answered.WriteString(word); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		asked.Close()
		answered.Close()
		<-done
	})
	return "printf x >" + asked.Name() + " && read word <" + answered.Name() + " && test \"$word\" = done"
}
