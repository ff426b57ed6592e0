// Package doctor looks at all that tracing on this host depends on, and says what is
// wrong, where, and what to do. "shimtrace doctor" calls it.
//
// Each file with a check has one idea. A check gets the host as it was found (site.go),
// changes nothing, and is done within seconds. What a check cannot know it does not
// guess: it says nothing, or that it does not know.
package doctor
