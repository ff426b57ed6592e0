// Package forwarder is the whole way of agents' spans through one process: it reads the
// connections of VMs, gives each VM's spans their place, and hands them to the journal.
//
// It takes connections from package listen, splits and decodes them with package agent, and
// stands between a guest, which may send anything at any rate, and a journal, which may be
// slow: it always reads on, within limits for each sandbox, and counts by reason what does
// not arrive. It never closes the connection of a VM that lives, because the agent does not
// connect twice, and holds up the VM's end while nobody reads. Package collate places the
// spans; one VM's share is its limits, its queue and its collator, under one key.
//
// It opens no sockets, starts nothing by itself, and knows no configuration: what the spans
// of a VM are called and where they belong, its caller says. A relay has a Forwarder for its
// one sandbox; a process of its own may have one for all of a host's.
package forwarder
