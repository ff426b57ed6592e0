package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// replaceAddress puts the relay's address in the place of the inner shim's in the bundle's
// address file. Only some shims write that file, and only then is anything replaced:
// containerd 1.7 finds the shim by it after a restart.
func replaceAddress(bundle, relay string) error {
	path := filepath.Join(bundle, "address")
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replace the shim's address: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace the shim's address: %w", err)
	}
	if bytes.Equal(bytes.TrimSpace(old), []byte(relay)) {
		return nil
	}
	return state.ReplaceFile(path, []byte(relay), st.Mode().Perm())
}
