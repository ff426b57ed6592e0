package guard

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// TestStoredSinceRegister: of what a successor stores the guard has all, whenever that comes.
func TestStoredSinceRegister(t *testing.T) {
	ours, theirs, err := host.UnixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var c Client
	store := func(name string) { c.Store(Entry{Name: name, Files: []syscall.Conn{null}}) }
	store("known")
	c.Register(ClientOptions{Dir: t.TempDir(), Who: Registration{ID: "x", Program: "x", Args: []string{"x"}}, Successor: &Resumption{Link: ours}, Logf: t.Logf})
	store("new")
	c.Remove("known")
	defer c.Leave()
	buf := make([]byte, maxPacket)
	for _, want := range []message{{Type: typeRegister}, {Type: typeComplete}, {Type: typeStore, Name: "new"}, {Type: typeRemove, Name: "known"}} {
		m, files, err := receivePacket(int(theirs.Fd()), buf)
		host.CloseAll(files)
		if err != nil || m.Type != want.Type || m.Name != want.Name {
			t.Fatalf("%s %q, %v, want %s %q", m.Type, m.Name, err, want.Type, want.Name)
		}
	}
}
