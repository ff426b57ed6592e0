package route

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzReceiver: whatever comes, messages are those that were sent, and no longer than is
// allowed.
func FuzzReceiver(f *testing.F) {
	f.Add(claimMessage(claim{Sandbox: "a", Processes: []int{1, 2}}))
	f.Add(append(appendMessage(nil, kindEnd, nil), appendMessage(nil, kindSpan, []byte("x"))...))
	f.Add([]byte{0, 0, 0, 0, 'c'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 's'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := receiver{from: bytes.NewReader(b), most: maxClaim}
		var again []byte
		for {
			kind, payload, err := r.next()
			if err != nil {
				break
			}
			if len(payload) >= maxClaim {
				t.Fatalf("a payload of %d bytes", len(payload))
			}
			again = appendMessage(again, kind, payload)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("read %x of %x", again, b)
		}
	})
}

// FuzzParseDiagnosis: an answer is of the socket that was asked for, or none.
func FuzzParseDiagnosis(f *testing.F) {
	var b [answerSize]byte
	b[4], b[answerFamily], b[answerInode] = unix.SOCK_DIAG_BY_FAMILY, unix.AF_INET, 1
	putIdentity(b[answerIdentity:], nowhere, nowhere)
	if s, err := parseDiagnosis(b[:], nowhere, nowhere); err != nil || s.inode != 1 {
		f.Fatalf("%+v, %v", s, err)
	}
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseDiagnosis(b, nowhere, nowhere); err == nil && s.inode == 0 {
			t.Fatalf("%+v", s)
		}
	})
}
