//go:build race

package main

// raceDetector reports that memory use is ten times the normal.
const raceDetector = true
