// Package metrics tells in OTLP what shimtrace does on a host: what a status picture has
// (package status), and what a Meter has counted in a journal, over all processes of shimtrace
// collect. No process of a pod takes part.
//
// It sends with package client, and knows no protocol.
package metrics
