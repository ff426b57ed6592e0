package main

import (
	"fmt"
	"io"
	"time"
)

// progress prints what is waited for, and how long each took.
type progress struct {
	to   io.Writer
	what string
	at   time.Time
}

func newProgress(to io.Writer) *progress { return &progress{to: to} }

// begin ends what was waited for before.
func (p *progress) begin(what string) {
	p.end()
	p.what, p.at = what, time.Now()
	fmt.Fprintf(p.to, "%s ...", what)
}

func (p *progress) end() {
	if p.what != "" {
		fmt.Fprintf(p.to, " %.1f s\n", time.Since(p.at).Seconds())
	}
	p.what = ""
}
