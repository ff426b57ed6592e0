// Package interpose takes the place of a VMM's hybrid VSOCK socket, so that the
// requests of a runtime to the agent in the VM can be relayed.
//
// As soon as the VMM has bound its socket, our socket takes its name, in one step and
// with the same mode and owner. The VMM's socket stays under another name, the hidden one,
// and every connection goes on to it. A connection whose first line asks for the
// agent's port goes to Options.Relay once the VMM has agreed. All others pass
// unchanged, descriptors included. So do the hundreds of attempts that the VMM turns
// down while its VM boots and no agent listens yet.
//
// Any failure leaves the runtime with its direct connection. A process that is killed
// leaves the VMM's socket under it; Restore gives its name back.
//
// The package does not know the requests or who makes them. The relay process of a
// sandbox runs an Interposer, and the shim's delete calls Restore.
package interpose
