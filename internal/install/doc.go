// Package install puts shimtrace where containerd finds it, turns Kata's tracing on, and
// takes both back. What is to be done is decided first, all of it (plan.go, kata.go), and
// then done in steps, of which each is done wholly or not at all.
//
// It does not change containerd's configuration: it prints what to write there.
package install
