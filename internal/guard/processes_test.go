package guard

import (
	"os"
	"os/exec"
	"testing"

	"github.com/shimtrace/shimtrace/internal/procevents"
)

// TestProcesses: a relay that asks for it is told what the processes below one execute, by
// the next guard, too, and hears why if that cannot be.
func TestProcesses(t *testing.T) {
	source, err := procevents.Open()
	if err != nil {
		t.Skip(err)
	}
	source.Close()
	h := newMachine(t)
	stop := h.guard(nil)
	reports, why := make(chan procevents.Report, 1000), make(chan string, 10)
	c := new(Client)
	c.Register(ClientOptions{
		Dir: h.dir, Who: Registration{ID: "follows", Program: "/nowhere", Args: []string{"x"}},
		Process: func(r procevents.Report) { reports <- r }, Unrecorded: func(text string) { why <- text },
		Logf: t.Logf,
	})
	defer c.Leave()
	await := func(kind procevents.Kind, pid int) {
		for r := range reports {
			if r.Kind == kind && r.PID == pid {
				return
			}
		}
	}
	c.Follow(os.Getpid(), 0, false)
	await(procevents.Listed, 0)
	run := func() {
		cmd := exec.Command("/bin/true")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		await(procevents.Ended, cmd.Process.Pid)
	}
	run()
	stop()
	h.guard(nil)
	await(procevents.Listed, 0)
	run()
	c.Follow(1<<22+1, 0, false)
	if text := <-why; text == "" {
		t.Error("a process that is not there is followed")
	}
	if self, _, err := Ask(t.Context(), h.dir); err != nil || self.Unrecorded != "" {
		t.Error(self, err)
	}
}
