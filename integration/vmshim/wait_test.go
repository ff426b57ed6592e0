package vmshim_test

import "github.com/shimtrace/shimtrace/internal/testkit"

var eventually = testkit.Until

// patience is that of eventually, for what waits in other ways.
const patience = testkit.Patience
