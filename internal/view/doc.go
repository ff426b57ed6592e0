// Package view is what the operator reads of a journal: which stories there are (list.go),
// which one a query means (find.go), and that one drawn or as OTLP (show.go). What stories
// are and how they are drawn is in package waterfall.
package view
