// Package kata is what a relay does for a Kata sandbox: it receives what the agent in the
// VM traces and what Kata's runtime traces on the host, has the runtime's requests to the
// agent relayed, and puts each span below what caused it.
//
// It is plugged into the relay of the shim's calls as a middleware.Observer, and told of
// windows of tracing; of the rest it asks the relay's Sandbox. What fails in it costs
// spans and is logged, and keeps no call. Facts about Kata are in package internal/kata.
package kata
