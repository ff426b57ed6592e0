// Package private opens directories and files that nobody but us may have made or
// may change: what root writes, removes, locks or executes must not be another
// user's to choose.
//
// A directory is private if nobody else can put anything into it, nor put another
// directory in its place, all the way from the root: that is checked once, when it is
// opened, and holds from then on. What lies in it is opened without following links
// and without waiting, and only if it is a regular file.
//
// It does not hide contents: that is for the modes of files.
package private
