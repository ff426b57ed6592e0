// Package procevents reads the kernel's process events (fork, exec, exit of every process
// of the host, from the netlink connector's CN_IDX_PROC) and follows those of a few
// processes: the inner shims of sandboxes.
//
// [Open] returns the [Source] of all events; a follower picks those of the processes below
// the roots that it was given, and reports the helpers among them: programs that an inner
// shim, or one of its helpers, executes on the host. What runs inside a container is not
// reported: a followed process that executes a program in the container's file system ends
// with that, in a report without a name.
//
// It keeps of a command line nothing but the program's name, a known subcommand and the
// container's id, and it makes no spans. The guard runs it, once a host.
package procevents
