//go:build race

package receiver

// race: the detector multiplies what everything costs.
const race = true
