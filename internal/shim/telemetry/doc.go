// Package telemetry has what a shim process needs to record its own spans: the identity
// that they carry, a provider that writes to the journal, and those spans that more than
// one of the processes around a sandbox may have to make.
//
// It does not decide when a span is made. It is used by the relay, by what it does for
// Kata, and by the process that records for the commands (package shim).
package telemetry
