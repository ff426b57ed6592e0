// Package relay is the process between containerd and one inner shim, from the moment
// when the inner shim serves until it is gone: it relays their calls (package
// middleware), keeps track of the sandbox and its containers, switches tracing on and
// off, and makes the spans that are not calls.
//
// It knows neither containerd's command line nor who started it (package shim), and of
// VMs only that package kata, if there is one, wants to observe.
package relay
