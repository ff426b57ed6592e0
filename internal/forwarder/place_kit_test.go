package forwarder_test

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder"
)

const patience = 20 * time.Second

// What the tests in package forwarder have as well.
var (
	connect    = forwarder.Connect
	send       = forwarder.Send
	eventually = forwarder.Eventually
)
