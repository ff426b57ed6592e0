package relay

import (
	"sync"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// settings are what a relay saves of its configuration: what it follows. Its successor goes by
// that while there are mistakes in the files.
type settings struct {
	Followed config.Followed `json:"followed"`
	Mode     string          `json:"mode"` // in effect
}

// effective is a configuration that is in effect.
type effective struct {
	config.Config
	// followed is what is followed of it, for settings: encoding that takes as long as all else
	// that is saved, and it seldom changes.
	followed func() config.Followed
}

func effectiveOf(cfg config.Config) *effective {
	return &effective{cfg, sync.OnceValue(cfg.Followed)}
}

// settings returns what is saved, with the mode in effect.
func (e *effective) settings(mode string) *settings { return &settings{e.followed(), mode} }

// mode returns the mode that another process had in effect, or that the sandbox begins in.
func (s saved) mode(st state.State) string {
	if s.Settings != nil {
		return s.Settings.Mode
	}
	return modeOf(st)
}
