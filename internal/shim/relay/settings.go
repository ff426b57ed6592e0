package relay

import (
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// settings are what a relay saves of its configuration: what it follows. Its successor goes by
// that while there are mistakes in the files.
type settings struct {
	Trace       config.Trace `json:"trace"`
	AgentQuiet  []string     `json:"agent_quiet"`
	JaegerQuiet []string     `json:"jaeger_quiet"`
	LogLevel    string       `json:"log_level"`
	Mode        string       `json:"mode"` // in effect
}

func settingsOf(cfg config.Config, mode string) *settings {
	return &settings{cfg.Trace, cfg.Agent.Quiet, cfg.Jaeger.Quiet, cfg.Log.Level, mode}
}

// in returns a configuration with what the settings say.
func (s settings) in(cfg config.Config) config.Config {
	was := cfg
	was.Trace, was.Agent.Quiet, was.Jaeger.Quiet, was.Log.Level = s.Trace, s.AgentQuiet, s.JaegerQuiet, s.LogLevel
	changed, _ := cfg.Live(was)
	return changed
}

// mode returns the mode that another process had in effect, or that the sandbox begins in.
func (s saved) mode(st state.State) string {
	if s.Settings != nil {
		return s.Settings.Mode
	}
	return modeOf(st)
}
