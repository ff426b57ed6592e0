// Package private opens directories and files that no other user can have made or can
// change: other users must not choose what root writes, removes, locks or executes.
//
// A directory is private if nobody else can put anything into it or replace it, all the
// way from the root. That is checked once, when it is opened, and holds from then on.
// Files in it are opened without following links and without waiting, and only if they
// are regular.
//
// The package does not hide contents; files' modes do that.
package private
