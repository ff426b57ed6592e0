//go:build race

package forwarder_test

// race: the detector multiplies what everything costs.
const race = true
