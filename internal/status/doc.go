// Package status is the picture of what shimtrace does on a host, for shimtrace status:
// relays, guard, collecting process, journals and what was shipped of them. All are asked
// side by side, within a bounded time; who does not answer in it is said not to.
//
// It changes nothing, and decides nothing.
package status
