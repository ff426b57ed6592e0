// Package listen accepts the connections that carry the Kata agent's spans out of a VM
// and hands each one, unread, to the code that reads spans.
//
// The agent connects to port 10240 of CID 2, the host. The VMM decides where that
// arrives:
//
//   - Hybrid VSOCK (Cloud Hypervisor, Firecracker, Dragonball, OpenVMM): the VMM
//     connects to the Unix socket <its own socket>_10240 in the sandbox's
//     directory. Hybrid listens there as soon as that directory exists.
//   - AF_VSOCK (QEMU): the port exists once a host. For relays the guard accepts
//     there (package guard), and hands each connection to the relay that has claimed
//     the peer's CID, which FindCID finds. AcceptVSOCK is for hosts without relays.
//
// Nothing here reads a byte of a connection: that is for the Handler, the forwarder's
// Take. The relay process runs Hybrid and FindCID for its sandbox.
package listen
