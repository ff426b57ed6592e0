package listen

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
)

// realEnv says that this machine may connect to itself over VSOCK: it is a VM with
// nothing else in it, and has the kernel module vsock_loopback.
const realEnv = "SHIMTRACE_TEST_VSOCK"

// realVSOCK is the NAME that makes a relay process use AF_VSOCK.
const realVSOCK = "AF_VSOCK"

// TestRealVSOCK passes real VSOCK connections and the real listening socket
// between processes. Over the loopback every peer's CID is 1.
func TestRealVSOCK(t *testing.T) {
	if os.Getenv(realEnv) == "" {
		t.Skip("needs a VM of its own; set ", realEnv, " there")
	}
	dir := t.TempDir() + "/porter"
	porter := start(t, nil, "relay", dir, realVSOCK, "first", "100")
	porter.expect("ready")
	relay := start(t, nil, "relay", dir, realVSOCK, "second", "1")
	relay.expect("ready")
	dial := func() *vsock.Conn {
		c, err := vsock.Dial(vsock.Local, Port, nil)
		if err != nil {
			t.Fatal("the port is not open: ", err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	before := dial()
	relay.expect("arrived second 1")
	if _, err := before.Write([]byte("before ")); err != nil {
		t.Fatal(err)
	}
	porter.kill()
	began := time.Now()
	after := dial()
	if _, err := after.Write([]byte("during")); err != nil {
		t.Fatal(err)
	}
	relay.expect("arrived second 1")
	t.Logf("served again %v after the porter was killed", time.Since(began))
	after.Close()
	relay.expect("ended 6 ")
	if _, err := before.Write([]byte("and after")); err != nil {
		t.Fatal(err)
	}
	before.Close()
	relay.expect(fmt.Sprintf("ended %d ", len("before and after")))
}
