// Package forwarder moves agents' spans through one process: it reads the connections of VMs,
// places each VM's spans, and hands them to the journal.
//
// It takes connections from package listen and splits and decodes them with package agent. A
// guest may send anything at any rate, and the journal may be slow. So a Forwarder never stops
// reading, keeps limits for each sandbox, and counts every loss by reason. It never closes the
// connection of a running VM: the agent does not connect twice, and delays the VM's end while
// nobody reads. Package collate places the spans; one VM's share is its limits, queue and
// collator, under one key.
//
// The package opens no sockets, starts nothing by itself, and knows no configuration: the
// caller names the spans' resource and trace. A relay has a Forwarder for its one sandbox; a
// separate process may have one for all sandboxes of a host.
package forwarder
