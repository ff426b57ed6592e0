//go:build race

package main

// raceDetector tells that memory is ten times what it is.
const raceDetector = true
