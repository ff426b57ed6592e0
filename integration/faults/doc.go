// Package faults puts a load on real containers while something fails, and says
// afterwards what the containers, the calls and the spans went through.
//
// A [Load] runs beside a fault: containers that are to live through it, others that
// start and end, execs whose output is compared byte by byte, questions, and calls and
// streams of a shim that echoes. It keeps a [Ledger] of what it expects. [Account] holds
// the ledger against the journal and the collector. [Killer] ends processes at random
// moments.
//
// The package knows what processes of shimtrace are called, and nothing else of them.
package faults
