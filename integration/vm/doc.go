// Package vm boots emulated guests, so that tests cross a real VM boundary: a
// real VSOCK, with a guest kernel at the far end. It needs no hardware
// virtualization; QEMU emulates the processor.
//
// There are two shapes, those of a Kata host:
//
//   - [Hybrid]: one guest whose VSOCK is a Unix socket on this machine, as with
//     Cloud Hypervisor and Firecracker. A program here reaches the guest's port
//     1024 by "CONNECT 1024" on the socket; what the guest sends to CID 2 port
//     10240 arrives at the socket's name with _10240 appended.
//   - [Nested]: a guest that is itself a host, with AF_VSOCK, KVM and QEMU, and
//     guests of its own that have CIDs, as with QEMU. The programs under test
//     run inside it, because AF_VSOCK cannot be tried on a machine without
//     disturbing it.
//
// A guest is a kernel and an initramfs made for it: busybox, kernel modules, the
// files of its options and nothing else. Its services are shell commands that
// print to the console; [Guest.WaitLine] waits for what they print, and
// [Guest.Sh] runs further commands while the guest lives. Programs for a guest
// must be static; [Build] makes such of Go packages.
//
// Emulation is slow and a busy machine makes it slower: a hybrid guest is up
// within seconds, a guest in a guest within half a minute. So every wait is
// generous, and what a test claims about time it must measure inside.
//
// Guests live no longer than the process that started them. Nothing is left on
// the machine but the cache of parts: the kernel and the program behind the
// hybrid socket, which the parts command gets. The package needs an x86-64
// machine with Debian's packages and a Rust toolchain for that; what is missing
// is a [*rig.MissingError]. It knows nothing of shimtrace.
package vm
