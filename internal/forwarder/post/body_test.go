package post

import (
	"bytes"
	"net/http"
	"testing"
	"testing/iotest"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestTooLong: a body that is somewhat too long is read to its end, so that its sender sees the
// answer; of one that is far too long not much is. Who asks first sends nothing.
func TestTooLong(t *testing.T) {
	const most = 64 << 10
	for _, tt := range []struct {
		name      string
		length    int
		announced bool
		expect    string
		left      int
	}{
		{"announced", most + 10, true, "", 0},
		{"not announced", 2 * most, false, "", 0},
		{"far too long", 5 * most, true, "", 3 * most},
		{"asked first", most + 10, true, "100-continue", most + 10},
	} {
		content := bytes.NewReader(make([]byte, tt.length))
		req, err := http.NewRequest(http.MethodPost, "/", iotest.HalfReader(content))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		if tt.announced {
			req.ContentLength = int64(tt.length)
		}
		req.Header.Set("Expect", tt.expect)
		room := NewRoom(1 << 20)
		_, refused := Reader{Room: room, Max: most}.Body(req)
		if refused == nil || refused.Reason != losses.OversizedPost || content.Len() != tt.left || room.Free() != 1<<20 {
			t.Errorf("%s: %v, %d bytes left, %d of the room are free", tt.name, refused, content.Len(), room.Free())
		}
	}
}
