package vm_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// TestRelaysShareThePort has a host with QEMU's VMs, a relay for each and the guard, as
// they come and go: connections reach their sandbox's relay and no other, whole.
func TestRelaysShareThePort(t *testing.T) {
	peer := program(t, "peer")
	guestFiles := map[string]string{"bin/peer": peer}
	capture := func(name string) []byte {
		data := captured.Frames(t, name)
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		guestFiles["captures/"+name] = path
		return data
	}
	pod, rs := capture("kata-4.1.0-pod.agent"), capture("kata-4.1.0-rs-pod.agent")
	old, golden := capture("kata-3.28.0-agent"), capture("golden-json")
	h := host{t, vm.StartNested(t, vm.NestedOptions{
		Files:         map[string]string{"bin/peer": peer, "bin/relay": program(t, "relay")},
		GuestFiles:    guestFiles,
		GuestServices: []string{"peer agent 2 10240 1024"},
		Guests:        []uint32{3, 4},
		Log:           t.Output(),
	})}

	// The guard holds a connection whose relay is still to come.
	guard := h.guard(time.Hour)
	first := h.relay(3)
	h.tell(3, "connect")
	h.tell(4, "connect")
	h.relay(4)
	h.tell(3, "send /captures/kata-4.1.0-pod.agent")
	h.tell(4, "send /captures/kata-3.28.0-agent")
	h.received(3, "sandbox-3", pod)
	h.received(4, "sandbox-4", old)

	// The guard's death costs no connection.
	h.sh(fmt.Sprintf("kill -9 %d", guard))
	h.tell(4, "send /captures/kata-3.28.0-agent")
	h.received(4, "sandbox-4", old, old)
	h.guard(time.Second)
	h.wait("^relay sandbox-4: guard 2$")

	// A relay's death costs its own sandbox's connection, and no other.
	h.sh(fmt.Sprintf("kill -9 %d", first))
	h.wait("^guest 3: peer: the host ended the agent's connection")

	// A relay that comes back, one of a new VM, and a VM that has none.
	h.relay(3)
	for _, cid := range []uint32{5, 6} {
		if err := h.Boot(t.Context(), cid); err != nil {
			t.Fatal(err)
		}
		h.wait(fmt.Sprintf("^guest %d: peer: agent is up$", cid))
	}
	h.relay(5)
	for _, cid := range []uint32{3, 5, 6} {
		h.tell(cid, "connect")
	}
	h.tell(3, "send /captures/golden-json")
	for _, cid := range []uint32{6, 5, 4, 3} {
		h.tell(cid, "send /captures/kata-4.1.0-rs-pod.agent")
	}
	h.received(3, "sandbox-3", golden, rs)
	h.received(4, "sandbox-4", old, old, rs)
	h.received(5, "sandbox-5", rs)
	h.received(6, "", rs)

	// A VM that is killed ends its own connection, and no other.
	if err := h.Halt(t.Context(), 5); err != nil {
		t.Error(err)
	}
	h.wait(`^relay sandbox-5: sandbox "sandbox-5" CID 5: closed: `)
	ended := regexp.MustCompile("^guest [^3]: peer: the host ended")
	for _, line := range h.Lines() {
		if ended.MatchString(line) {
			t.Error(line)
		}
	}

	// Nothing was lost, and nobody got what was another's. One has that of the VM that
	// has no relay.
	got := map[string][][]byte{"3": {golden, rs}, "4": {old, old, rs}, "5": {rs}}
	stray := h.wait(`^relay sandbox-(.): sandbox "" CID 6: `)[1]
	got[stray] = append(got[stray], rs)
	h.sh("kill $(pidof relay)")
	for cid, streams := range got {
		n, _ := digestOf(t, streams...)
		h.wait(fmt.Sprintf(`^relay sandbox-%s: delivered %d, lost map\[\], refused map\[\]$`, cid, n))
	}
}

// host is the guest with the relays.
type host struct {
	t *testing.T
	*vm.Host
}

// guard starts the guard, and returns its process id in the host.
func (h host) guard(hold time.Duration) int {
	h.t.Helper()
	pid, err := h.Spawn(h.t.Context(), fmt.Sprintf("relay -guard -dir /run/relays -hold %s", hold))
	if err != nil {
		h.t.Fatal(err)
	}
	return pid
}

// relay starts the relay of a guest that has been booted, waits until it has found its
// guest and the guard knows, and returns its process id in the host. QEMU's parent
// stands for the shim.
func (h host) relay(cid uint32) int {
	h.t.Helper()
	pid, err := h.Spawn(h.t.Context(), fmt.Sprintf("relay -sandbox sandbox-%d -dir /run/relays "+
		"-shim $(cut -d' ' -f4 /proc/$(cat /run/guest-%d.pid)/stat)", cid, cid))
	if err != nil {
		h.t.Fatal(err)
	}
	h.wait(fmt.Sprintf("^relay sandbox-%d: process %d claims CID %d$", cid, pid, cid))
	return pid
}

// tell gives a guest's agent a command, which it obeys before this returns.
func (h host) tell(cid uint32, command string) {
	h.t.Helper()
	if out := h.sh(fmt.Sprintf("peer dial %d 1024 '%s'", cid, command)); out != fmt.Sprintf("peer: answer from CID %d: done\n", cid) {
		h.t.Fatalf("agent %d, told to %s: %s", cid, command, out)
	}
}

// received waits until the whole of the streams has come on one connection.
func (h host) received(cid uint32, sandbox string, streams ...[]byte) {
	h.t.Helper()
	n, digest := digestOf(h.t, streams...)
	h.wait(fmt.Sprintf("^relay .*: sandbox %q CID %d: %d spans, digest %s$", sandbox, cid, n, digest))
}

func (h host) sh(command string) string {
	h.t.Helper()
	out, err := h.Sh(h.t.Context(), command)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h host) wait(pattern string) []string {
	h.t.Helper()
	return wait(h.t, h.Guest, pattern)
}

// digestOf is what a relay says of a connection with these streams.
func digestOf(t *testing.T, streams ...[]byte) (spans int, digest string) {
	t.Helper()
	sum := sha256.New()
	r := agent.NewReader(bytes.NewReader(bytes.Join(streams, nil)), agent.Options{})
	decoder := agent.NewDecoder(agent.Options{})
	for {
		payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			return spans, fmt.Sprintf("%x", sum.Sum(nil)[:8])
		}
		var span span.Span
		if err == nil {
			err = decoder.Decode(payload, &span)
		}
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(span.AppendOTLP(nil))
		spans++
	}
}
