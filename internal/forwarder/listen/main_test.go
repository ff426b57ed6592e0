package listen

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmtest"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) {
	vmtest.Main(m, map[string]func(args []string) error{
		"connect": connectRole,
		"hybrid":  hybridRole,
		"sleep":   sleepRole,
		"orphan":  orphanRole,
		"parent":  parentRole,
	})
}

const patience = testkit.Patience

var (
	start      = vmtest.Start
	eventually = testkit.Until
	needRoot   = vmtest.NeedRoot
)

// asUser runs a child as another user.
func asUser(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

// connectRole connects to a Unix socket and says how that ends: NETWORK PATH.
func connectRole(args []string) error {
	conn, err := net.Dial(args[0], args[1])
	if err != nil {
		fmt.Println("refused", err)
		return nil
	}
	defer conn.Close()
	fmt.Println("connected")
	_, _ = conn.Write([]byte("hello"))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 16))
	fmt.Println("read", n, err)
	return nil
}

const nobody = 65534

// openUp lets everybody into a directory of the test.
func openUp(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
