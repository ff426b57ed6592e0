// Package vmshim is a shim for tests that has the shape of Kata's: to containerd
// it is a shim like another, behind it is a VM with an agent.
//
// Containers really run, by the runc shim, whose calls go through unchanged.
// Around each call the package does what Kata's Go runtime does around it: it
// boots a VM for a sandbox's first container, dials the agent through the VMM's
// hybrid socket with Kata's own client, and sends the agent the requests that go
// with the call. The VM is a local process, the agent of integration/rust/agent,
// and this package is its VMM; or it is a real VM that somebody else started. The
// agent runs nothing; it is told how the container's process ended.
//
// It is not a Kata: it isolates nothing, and it does no more for a guest than a
// trace shows. It knows the task API of version 3, which containerd since 2.3
// and its runc shim speak.
//
// The program is cmd/containerd-shim-vmrunc-v2. [Settings] says what its
// environment can ask for.
package vmshim
