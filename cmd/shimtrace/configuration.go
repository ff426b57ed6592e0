package main

import "github.com/shimtrace/shimtrace/internal/config"

// config returns the configuration for an inner shim, or the common one for "". It
// warns of mistakes, which have the effect that they name.
func (h *host) config(inner string) config.Config {
	cfg, r := config.Load(inner, h.getenv)
	_ = h.mistakes(r)
	return cfg
}

// mistakes warns of the mistakes in a configuration and returns them.
func (h *host) mistakes(r config.Report) error {
	for _, err := range append(r.Mistakes, r.Ignored...) {
		h.warn("%v", err)
	}
	return r.Err()
}

// strictConfig is config for commands started by people: mistakes in the file are an
// error.
func (h *host) strictConfig(inner string) (config.Config, error) {
	cfg, r := config.Load(inner, h.getenv)
	for _, err := range r.Ignored {
		h.warn("%v", err)
	}
	return cfg, r.Err()
}
