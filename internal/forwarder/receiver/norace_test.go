//go:build !race

package receiver

const race = false
