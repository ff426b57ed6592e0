package relay

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/internal/shim/state"
)

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	first, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if l, err := listenUnix(path); err == nil {
		l.Close()
		t.Error("took the place of a living listener")
	}
	first.Close()
	if state.Answers(path) {
		t.Error("closed listener answers")
	}
	second, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
}
