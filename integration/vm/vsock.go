package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/integration/toolset"
)

// vsockMend makes the device reliable. It has a queue of connections for which there is
// something to tell the guest. An entry may be out of date: the connection has ended, or all
// has been told. Then the device gave the guest a packet with whatever was in its memory, or
// left all that is behind that entry until the next event of some connection, which never
// comes if the guest waits for one. Such entries are passed over now.
var vsockMend = struct{ file, old, new string }{
	file: "src/thread_backend.rs",
	old:  "let key = self.backend_rxq.pop_front().ok_or(Error::EmptyBackendRxQ)?;",
	new: `let key = loop {
            let key = self.backend_rxq.pop_front().ok_or(Error::EmptyBackendRxQ)?;
            if self.conn_map.get(&key).is_some_and(|c| c.rx_queue.pending_rx()) {
                break key;
            }
        };`,
}

// vsockSource makes dir, with the device's source, mended.
func vsockSource(ctx context.Context, dir string) error {
	// Cargo downloads what it informs about, and nothing else.
	if _, err := toolset.Output(ctx, "/", "cargo", "info", "--quiet", vsockCrate+"@"+vsockVersion); err != nil {
		return err
	}
	home := os.Getenv("CARGO_HOME")
	if home == "" {
		home = filepath.Join(os.Getenv("HOME"), ".cargo")
	}
	pattern := filepath.Join(home, "registry/src/*", vsockCrate+"-"+vsockVersion)
	found, _ := filepath.Glob(pattern)
	if len(found) == 0 {
		return fmt.Errorf("cargo has put the source of %s elsewhere than %s", vsockCrate, pattern)
	}
	if err := os.CopyFS(dir, os.DirFS(found[0])); err != nil {
		return err
	}
	return mend(filepath.Join(dir, vsockMend.file))
}

func mend(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.Count(string(text), vsockMend.old) != 1 {
		return fmt.Errorf("mend %s: it is not as it was: %q", file, vsockMend.old)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), vsockMend.old, vsockMend.new, 1)), 0o644)
}
