package relay

import (
	"encoding/json"
	"sync"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// settings are what a relay saves of its configuration: what it follows. Its successor goes by
// that while there are mistakes in the files.
type settings struct {
	Followed json.RawMessage `json:"followed"` // a config.Followed
	Mode     string          `json:"mode"`     // in effect
}

// effective is a configuration that is in effect.
type effective struct {
	config.Config
	// followed is the text of what is followed of it, for settings: it takes as long as all
	// else that is saved, and seldom changes.
	followed func() json.RawMessage
}

func effectiveOf(cfg config.Config) *effective {
	return &effective{cfg, sync.OnceValue(func() json.RawMessage {
		text, err := json.Marshal(cfg.Followed())
		if err != nil {
			return nil // there are only texts in it, of what has been encoded
		}
		return text
	})}
}

// settings returns what is saved, with the mode in effect.
func (e *effective) settings(mode string) *settings { return &settings{e.followed(), mode} }

// with returns the configuration with what was followed by another process.
func (s *settings) with(cfg config.Config) config.Config {
	var followed config.Followed
	if json.Unmarshal(s.Followed, &followed) != nil {
		return cfg
	}
	return cfg.With(followed)
}

// mode returns the mode that another process had in effect, or that the sandbox begins in.
func (s saved) mode(st state.State) string {
	if s.Settings != nil {
		return s.Settings.Mode
	}
	return modeOf(st)
}
