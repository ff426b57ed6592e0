package main

import "github.com/shimtrace/shimtrace/internal/config"

// config returns the configuration for an inner shim, or what is common to all for
// "". What is wrong with it is said, and costs what it says.
func (h *host) config(inner string) config.Config {
	cfg, r := config.Load(inner, h.getenv)
	_ = h.mistakes(r)
	return cfg
}

// mistakes says what is wrong with a configuration, and returns it.
func (h *host) mistakes(r config.Report) error {
	for _, err := range append(r.Mistakes, r.Ignored...) {
		h.warn("%v", err)
	}
	return r.Err()
}

// strictConfig is for what a person starts who would rather know: mistakes in the
// file are an error.
func (h *host) strictConfig(inner string) (config.Config, error) {
	cfg, r := config.Load(inner, h.getenv)
	for _, err := range r.Ignored {
		h.warn("%v", err)
	}
	return cfg, r.Err()
}
