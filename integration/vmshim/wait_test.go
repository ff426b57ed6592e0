package vmshim_test

import "github.com/shimtrace/shimtrace/internal/testkit"

var eventually = testkit.Until
