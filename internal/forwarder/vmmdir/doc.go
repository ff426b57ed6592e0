// Package vmmdir works in the directory where a VMM has its sockets. It notices when
// the directory appears, keeps other relays out of it, and does nothing there that the
// directory's owner, who is not trusted, could not do itself.
//
// It does not know what the sockets are for. Packages listen and interpose use it.
package vmmdir
