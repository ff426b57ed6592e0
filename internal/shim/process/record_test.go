package process

import "testing"

// TestRecordersAreFew, however many deletes there are on a disk that hangs.
func TestRecordersAreFew(t *testing.T) {
	state := t.TempDir()
	releases := make(chan func(), 2*maxRecorders)
	for range maxRecorders {
		free, err := recorderSlot(state, 0)
		if err != nil {
			t.Fatal(err)
		}
		releases <- free
	}
	if _, err := recorderSlot(state, 0); err == nil {
		t.Error("one more records")
	}
	(<-releases)()
	free, err := recorderSlot(state, 0)
	if err != nil {
		t.Fatal(err)
	}
	free()
	for range maxRecorders - 1 {
		(<-releases)()
	}
}
