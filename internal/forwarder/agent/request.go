package agent

import (
	"bytes"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

const (
	// requestKey is the attribute with the debug print of a request.
	requestKey = "req"
	// requestHead is how many bytes of it contain the ids: the request's name, and two ids of
	// span.MaxID with their field names.
	requestHead = 512
)

// requestIDs finds the container id and exec id in the beginning of a request
// as the agent prints it:
//
//	ExecProcessRequest { container_id: "c", exec_id: "e", string_user: …
//	container_id: "c" exec_id: "e" string_user: …    (before Kata 3.1)
//
// Both are the first fields of every request that has them, so nothing further
// in, which the user of a container wrote, can pass for them. An exec id that
// repeats the container id means the container's first process, as an empty one
// does: the Go runtime writes one, runtime-rs the other.
func requestIDs(req []byte) (container, exec []byte) {
	if name, fields, ok := bytes.Cut(req, []byte(" { ")); ok && isTypeName(name) {
		req = fields
	}
	container, req = idField(req, "container_id: \"")
	if container == nil {
		return nil, nil
	}
	req = bytes.TrimPrefix(req, []byte(","))
	exec, _ = idField(req, " exec_id: \"")
	if bytes.Equal(exec, container) {
		exec = nil
	}
	return container, exec
}

// idField returns the id between prefix and a quote, and the rest after it; nil if there is no
// valid id.
func idField(b []byte, prefix string) (id, rest []byte) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return nil, nil
	}
	id, rest, ok := bytes.Cut(b[len(prefix):], []byte{'"'})
	if !ok || !span.ValidID(id) {
		return nil, nil
	}
	return id, rest
}

func isTypeName(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
