// Package host has what is local to a host: locks of files (lock.go), Unix sockets and
// their peers (unix.go), descriptors that are handed to other processes
// (descriptor.go).
//
// It also tells who a process is by what the process cannot choose: its users, when it
// started, which file it executes (process.go); and whose a socket is (socket.go,
// tcp.go). Names, paths and command lines are what any local user can give a process of
// his own; they are looked at only once the rest is right.
//
// It does not decide whom to trust, and keeps nothing.
package host
