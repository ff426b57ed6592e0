// Package view shows a journal to the operator: its stories (list.go), the story that a
// query means (find.go), and that story drawn or as OTLP (show.go). Package waterfall
// defines and draws stories.
package view
