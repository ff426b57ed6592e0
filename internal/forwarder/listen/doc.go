// Package listen waits where the Kata agent's spans leave a VM and hands each
// connection, unread, to whoever reads spans.
//
// The agent connects to port 10240 of CID 2, the host. Where that arrives depends
// on the VMM:
//
//   - Hybrid VSOCK (Cloud Hypervisor, Firecracker, Dragonball, OpenVMM): the VMM
//     connects to the Unix socket <its own socket>_10240 in the sandbox's
//     directory. Hybrid listens there as soon as that directory exists.
//   - AF_VSOCK (QEMU): the port exists once a host. For relays the guard accepts
//     there (package guard), and hands each connection to the relay that has claimed
//     the peer's CID, which FindCID finds. AcceptVSOCK is for hosts without relays.
//
// Nothing here reads a byte of a connection or knows what is in it: that is the
// forwarder's part, whose Take is the Handler. The relay process runs both kinds
// of listeners for its sandbox.
package listen
