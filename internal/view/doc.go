// Package view shows a journal to the operator: its stories (list.go), the story that a
// query means (find.go), that story drawn or as OTLP (show.go), and why its start took
// as long as it did (explain.go). Package waterfall defines and draws stories, package
// explain explains them.
package view
