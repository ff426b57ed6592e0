// Package evidence reads, for microseconds, what the host suffers from while a sandbox
// starts, and what its processes do during a long call: pressure stall information, the
// pod's cgroup, processor time, page faults. What a host does not have is left out.
//
// It says nothing of causes; the relay puts what it returns into spans.
package evidence
