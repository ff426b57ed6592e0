// Package helpers makes the spans of what an inner shim executes on the host: runc, hooks,
// virtiofsd, the VMM. It observes the calls that pass (middleware.Observer), and is told of
// the helpers by the guard (package procevents): each gets a span from exec to exit below
// the call in flight that caused it, and the moment at which a container's own program is
// executed is noted at the call that started it.
//
// It reads nothing from the kernel, and knows neither the guard nor VMs. The relay runs it.
package helpers
