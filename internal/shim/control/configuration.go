package control

import "time"

// Configuration says which configuration a relay goes by.
type Configuration struct {
	// Mode is the trace.mode that is in effect.
	Mode string `json:"mode"`
	// Files are those that the relay follows, Read is when it read what is in effect.
	Files []string  `json:"files"`
	Read  time.Time `json:"read,omitzero"`
	// Problem is why what the files say now is not in effect; nil: it is.
	Problem *Problem `json:"problem,omitempty"`
	// NewPods are the keys that have other values in the files than when the relay began,
	// and that only new pods follow.
	NewPods []string `json:"for_new_pods,omitempty"`
	// Unseen is why changes of the files have no effect on this relay; empty: they have.
	Unseen string `json:"unseen,omitempty"`
}

// Problem is a mistake in a file.
type Problem struct {
	// Line and Column are 0 if it is about the whole file.
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Error  string `json:"error"`
	// Since is when the relay noticed.
	Since time.Time `json:"since"`
}
