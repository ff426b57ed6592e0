package endpoint

import (
	"bytes"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// goCalls are the methods by the Go runtime's spans, rustCalls by runtime-rs's requests.
var goCalls, rustCalls = func() (ofGo, ofRust map[string]string) {
	ofGo, ofRust = make(map[string]string), make(map[string]string)
	for _, c := range kata.Calls {
		if c.Go != "" {
			ofGo[c.Go] = c.Method
		}
		if c.Rust != "" {
			ofRust[c.Rust] = c.Method
		}
	}
	return ofGo, ofRust
}()

// method returns the shim's call that a span is, empty for what happens within one.
func method(t *traits, req request) string {
	switch string(t.name) {
	case kata.TaskMessage, kata.TaskRequest, kata.SandboxMessage:
		return rustCalls[string(req.name)]
	}
	if string(t.pkg) == kata.GoPackage {
		return goCalls[string(t.name)]
	}
	return ""
}

// request is what the beginning of a request of runtime-rs says. Texts are parts of
// the body; ids may be none.
type request struct {
	name            []byte // of the variant: StartProcess
	container, exec []byte
	sandbox         []byte
}

// parseRequest reads a request as Rust's debug print has it:
//
//	StartProcess(ContainerProcess { container_id: ContainerID { container_id: "c" }, exec_id: "e", …
//	KillProcess(KillRequest { process: ContainerProcess { container_id: ContainerID { …
//	CreateContainer(ContainerConfig { container_id: "c", bundle: …
//	StartSandbox(SandboxID { sandbox_id: "s" })
//	Pid
//
// The ids are the first fields of whatever has them, so nothing further in, which
// the user of a container wrote, can pass for them.
func parseRequest(text []byte) (req request) {
	text = text[:min(len(text), requestHead)]
	if name, args, ok := bytes.Cut(text, []byte{'('}); ok && isName(name) {
		req.name, text = name, args
	} else if isName(text) {
		req.name = text
		return req
	}
	for range maxNesting {
		of, fields, ok := bytes.Cut(text, []byte(" { "))
		if !ok || !isName(of) {
			return req
		}
		text = fields
		switch {
		case skip(&text, "process: "):
		case skip(&text, `sandbox_id: "`):
			req.sandbox, _ = quoted(text)
			return req
		case skip(&text, `container_id: "`):
			var after []byte
			req.container, after = quoted(text)
			if skip(&after, ` }, exec_id: "`) && req.container != nil {
				req.exec, _ = quoted(after)
			}
			return req
		case skip(&text, "container_id: "):
		default:
			return req
		}
	}
	return req
}

const (
	// requestHead is how much of a request, in bytes, holds the ids.
	requestHead = 1024
	// maxNesting is how deep they are: KillRequest { ContainerProcess { ContainerID.
	maxNesting = 3
)

// skip steps over a prefix, if it is there.
func skip(text *[]byte, prefix string) bool {
	if len(*text) < len(prefix) || string((*text)[:len(prefix)]) != prefix {
		return false
	}
	*text = (*text)[len(prefix):]
	return true
}

// quoted returns what is before the next quote, and what is behind it; nothing where
// there is none. Ids have nothing in them that would be escaped.
func quoted(text []byte) (id, after []byte) {
	id, after, ok := bytes.Cut(text, []byte{'"'})
	if !ok {
		return nil, nil
	}
	return id, after
}

func isName(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 64
}
