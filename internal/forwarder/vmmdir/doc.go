// Package vmmdir is what it takes to work in the directory where a VMM has its
// sockets: to see it appear, to keep other relays out of it meanwhile, and to do
// there nothing that its owner, who need not be trusted, could not do itself.
//
// It knows nothing of what the sockets are for. Packages listen and interpose use
// it.
package vmmdir
