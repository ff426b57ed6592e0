package post

import (
	"net/http"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Refusal says why a post is not taken.
type Refusal struct {
	Reason losses.Reason
	Status int // of HTTP
	Text   string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

// ErrBusy refuses a post for which there is no room.
var ErrBusy = &Refusal{losses.BusyPost, http.StatusServiceUnavailable, "more spans wait to be decoded than there is room for"}
