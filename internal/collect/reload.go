package collect

import (
	"slices"

	"github.com/shimtrace/shimtrace/internal/config"
)

// Reloader returns an Options.Reload that loads the configurations when a file of theirs has
// changed since the call of Reloader, which therefore comes before the first load. What files
// with mistakes say is not returned, nor what is said while one is absent, for instance
// because an editor is replacing it; load reports the mistakes.
func Reloader(getenv func(string) string, load func() ([]config.Config, error)) func() []config.Config {
	last := config.Versions(getenv)
	return func() []config.Config {
		now := config.Versions(getenv)
		if slices.Equal(now, last) || slices.Contains(now, config.Version{}) {
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
