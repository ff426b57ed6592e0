package process

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
)

func TestMain(m *testing.M) { shimtest.Main(m) }
