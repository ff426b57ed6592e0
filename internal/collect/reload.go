package collect

import (
	"os"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/config"
)

// Reloader returns an Options.Reload that loads the configurations when their file has
// changed since the call of Reloader, which therefore comes before the first load. What a
// file with mistakes says is not returned; load reports the mistakes.
func Reloader(getenv func(string) string, load func() ([]config.Config, error)) func() []config.Config {
	path, _ := config.Path(getenv)
	last := versionOf(path)
	return func() []config.Config {
		now := versionOf(path)
		if now == last || now == (version{}) {
			return nil
		}
		last = now
		all, err := load()
		if err != nil {
			return nil
		}
		return all
	}
}

// version tells one state of a file from another. A file that is absent, for instance
// because an editor is replacing it, has none.
type version struct {
	inode    uint64
	size     int64
	modified syscall.Timespec
}

func versionOf(path string) version {
	info, err := os.Stat(path)
	if err != nil {
		return version{}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return version{}
	}
	return version{st.Ino, st.Size, st.Mtim}
}
