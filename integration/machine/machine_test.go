package machine

import (
	"os"
	"strings"
	"testing"
)

// TestMachine: a service runs in it, and what is written there is not here.
func TestMachine(t *testing.T) {
	if os.Getenv("SHIMTRACE_RELEASE") != "all" {
		t.Skip("for the tests of a release: make test-release")
	}
	m := Start(t, t.TempDir())
	out, err := m.Run(t.Context(), `
		mkdir -p /etc/machine-test /run/systemd/system
		echo hello >/etc/machine-test/greeting
		printf '[Service]\nType=oneshot\nExecStart=/bin/cp /etc/machine-test/greeting /run/greeting\n' >/run/systemd/system/greet.service
		systemctl start greet
		cat /run/greeting`)
	if err != nil || out != "hello\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := os.Stat("/etc/machine-test"); err == nil {
		t.Error("it has written into this machine")
	}
	changed, err := m.Changed(t.Context(), "etc")
	if err != nil || !strings.Contains(strings.Join(changed, "\n"), "etc/machine-test/greeting") {
		t.Errorf("%q, %v", changed, err)
	}
}
