package relay

import (
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// settings are what a relay saves of its configuration: what it follows. Its successor goes by
// that while there are mistakes in the files.
type settings struct {
	Followed config.Followed `json:"followed"`
	Mode     string          `json:"mode"` // in effect
}

func settingsOf(cfg config.Config, mode string) *settings {
	return &settings{cfg.Followed(), mode}
}

// mode returns the mode that another process had in effect, or that the sandbox begins in.
func (s saved) mode(st state.State) string {
	if s.Settings != nil {
		return s.Settings.Mode
	}
	return modeOf(st)
}
