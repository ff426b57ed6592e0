// Package critical finds the critical path of a sandbox's start: for each moment from
// the caller's request to the container's first instruction, the one span that the rest
// waited for, and whose time it is.
//
// It reads a tree of package waterfall and changes nothing in it. It knows facts about
// containerd, runc and Kata (known.go), and looks for no causes: package causes does.
package critical
