package journal

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// roleEnv makes the test binary a writer process, as crash_test.go starts them.
const roleEnv = "SHIMTRACE_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(roleEnv); dir != "" {
		writerProcess(dir)
		return
	}
	goleak.VerifyTestMain(m)
}
