package journal_test

import (
	"os"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/receiver"
	"github.com/shimtrace/shimtrace/middleware"
)

// TestSourceKeys: the attributes by which a journal tells sandboxes apart are those that
// relays put on their resources. It cannot import them: they come with more than a writer
// of a journal needs.
func TestSourceKeys(t *testing.T) {
	text, err := os.ReadFile("source.go")
	if err != nil {
		t.Fatal(err)
	}
	want := `var sourceKeys = []string{"` + string(middleware.SandboxIDKey) + `", "` + string(receiver.CIDKey) + `"}`
	if !strings.Contains(string(text), want) {
		t.Errorf("source.go lacks %s", want)
	}
}
