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

// vsockSource puts the device's source, mended, into a directory that it makes in dir.
func vsockSource(ctx context.Context, dir string) (string, error) {
	// A package that depends on it, for cargo to download it.
	user := filepath.Join(dir, "user")
	if err := os.MkdirAll(filepath.Join(user, "src"), 0o755); err != nil {
		return "", err
	}
	manifest := fmt.Sprintf("[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[dependencies]\n%s = \"=%s\"\n", vsockCrate, vsockVersion)
	for name, text := range map[string]string{"Cargo.toml": manifest, "src/lib.rs": ""} {
		if err := os.WriteFile(filepath.Join(user, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	if _, err := toolset.Output(ctx, user, "cargo", "vendor", "--quiet", filepath.Join(dir, "all")); err != nil {
		return "", err
	}
	source := filepath.Join(dir, "all", vsockCrate)
	return source, mend(filepath.Join(source, vsockMend.file))
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
