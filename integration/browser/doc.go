// Package browser has tests of the pages that shimtrace show --html writes, in a real
// browser: Debian's Chromium without a window.
package browser
