// Package forwarder reads the spans that the Kata agents of VMs send, and hands
// them on, one after another, to a Sink.
//
// It takes connections from package listen, splits and decodes them with package
// agent, and stands between a guest, which may send anything at any rate, and
// a sink, which may be slow: it always reads on, within limits for each sandbox,
// and counts by reason what it does not deliver. It never closes the connection of
// a VM that lives, because the agent does not connect twice, and holds up the VM's
// end while nobody reads.
//
// It opens no sockets, and knows nothing of where a span belongs in a trace or
// where it is exported to: that is the Sink's part. A relay has a Forwarder for
// its one sandbox; a process of its own may have one for all of a host's.
package forwarder
