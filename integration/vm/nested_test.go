package vm_test

import (
	"testing"

	"github.com/shimtrace/shimtrace/integration/vm"
)

func TestNestedGuestsReachTheirHost(t *testing.T) {
	peer := map[string]string{"bin/peer": program(t, "peer")}
	h := vm.StartNested(t, vm.NestedOptions{
		Files:         peer,
		Services:      []string{"peer serve 10240"},
		GuestFiles:    peer,
		GuestServices: []string{"peer serve 1024", "peer dial 2 10240 \"from guest $VM_CID\""},
		Guests:        []uint32{3, 4},
		Log:           t.Output(),
	})
	wait(t, h.Guest, "^peer: from CID 3: from guest 3$")
	wait(t, h.Guest, "^peer: from CID 4: from guest 4$")
	wait(t, h.Guest, "^guest 3: peer: answer from CID 2: from guest 3$")
	wait(t, h.Guest, "^guest 4: peer: answer from CID 2: from guest 4$")

	wait(t, h.Guest, "^guest 4: peer: listening on port 1024$")
	if out, err := h.Sh(t.Context(), "peer dial 4 1024 'from the host'"); err != nil || out != "peer: answer from CID 4: from the host\n" {
		t.Errorf("the host's call of guest 4 gives %q, %v", out, err)
	}
	if err := h.Halt(t.Context(), 3); err != nil {
		t.Error(err)
	}
}
