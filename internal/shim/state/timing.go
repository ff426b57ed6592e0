package state

import "time"

// Timing is a span that is over but not exported.
type Timing struct {
	Name  string    `json:"name"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	Error string    `json:"error,omitempty"`
	// Expected reports whether Error belongs to a healthy life.
	Expected bool `json:"expected,omitempty"`
	// Children lie within.
	Children []Timing `json:"children,omitempty"`
}
