// Package interpose takes the place of a VMM's hybrid VSOCK socket, so that what a
// runtime says to the agent in the VM can be relayed.
//
// As soon as the VMM has bound its socket, a socket of ours takes its name, in one
// step and with the same mode and owner; the VMM's lives on under a name that says
// so, and is where every connection goes on to. A connection whose first line asks
// for the agent's port is handed to Options.Relay when the VMM has agreed. Every
// other one passes as it came, descriptors included, and so does an attempt that
// the VMM turns down because no agent listens yet: hundreds while a VM boots.
//
// Whatever fails leaves the runtime with its direct connection. A process that is
// killed leaves the VMM's socket aside; Restore gives it back.
//
// Nothing here knows what is said to the agent, or by whom. The relay process of a
// sandbox runs an Interposer, and the shim's delete calls Restore.
package interpose
