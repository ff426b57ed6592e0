package forwarder_test

import (
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

const patience = testkit.Patience

// What the tests in package forwarder have as well.
var (
	connect    = forwarder.Connect
	send       = forwarder.Send
	eventually = forwarder.Eventually
)
