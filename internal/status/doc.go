// Package status is the picture of what shimtrace does on a host, for shimtrace status:
// relays, guard, collecting process, journals and what was shipped of them. All are asked
// side by side, within a bounded time. The picture says who has not answered by then.
//
// It changes nothing, and decides nothing.
package status
