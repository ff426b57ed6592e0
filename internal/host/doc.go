// Package host has what is local to a host: file locks (lock.go), files in memory
// (memory.go), Unix sockets and their peers (unix.go), and passing descriptors to other
// processes (descriptor.go).
//
// It identifies a process by what the process cannot choose: its users, its start, the
// file that it executes (process.go). It also finds a socket's process and user
// (socket.go, tcp.go). Any local user can choose the name, path and command line of their
// process; these are looked at only once the rest is right.
//
// It starts programs (child.go), and asks an installed one for its version (version.go).
//
// It does not decide whom to trust, and keeps no state.
package host
