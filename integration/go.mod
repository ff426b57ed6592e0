module github.com/shimtrace/shimtrace/integration

go 1.26.0

replace github.com/shimtrace/shimtrace => ..

require golang.org/x/sys v0.49.0 // indirect
