// Package install puts shimtrace where containerd finds it, turns on Kata's tracing,
// and reverts both. It first plans all changes (plan.go, kata.go, containerd.go) and then
// makes them in steps, each wholly or not at all.
//
// It changes containerd's configuration, and restarts containerd, only if that is asked
// for, and otherwise prints what to add (snippet.go).
package install
