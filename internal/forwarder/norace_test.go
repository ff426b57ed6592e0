//go:build !race

package forwarder_test

const race = false
