// Package post is the part of an HTTP server that reads posts of spans from programs
// that are not trusted: connections, times and memory are bounded, whatever they send.
//
// It does not know what is in a body. Package endpoint takes the posts of Kata's
// runtimes with it, package receiver those of all others.
package post
