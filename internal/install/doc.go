// Package install puts shimtrace where containerd finds it, turns on Kata's tracing,
// and reverts both. It first plans all changes (plan.go, kata.go) and then makes them
// in steps, each wholly or not at all.
//
// It does not change containerd's configuration but prints what to add to it.
package install
