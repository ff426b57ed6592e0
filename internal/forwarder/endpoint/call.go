package endpoint

import (
	"bytes"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// goCalls has the methods by the Go runtime's span names, rustCalls by runtime-rs's
// request names.
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

// method returns the method of the shim's call that the span is; empty if it is only
// part of one.
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

// request is what the beginning of runtime-rs's request says. Its fields are slices of
// the body; ids may be missing.
type request struct {
	name            []byte // the variant's, such as StartProcess
	container, exec []byte
	sandbox         []byte
}

// parseRequest reads a request as Rust's debug format prints it:
//
//	StartProcess(ContainerProcess { container_id: ContainerID { container_id: "c" }, exec_id: "e", …
//	KillProcess(KillRequest { process: ContainerProcess { container_id: ContainerID { …
//	CreateContainer(ContainerConfig { container_id: "c", bundle: …
//	StartSandbox(SandboxID { sandbox_id: "s" })
//	Pid
//
// The ids are the first fields of their structs, so nothing further in, which a
// container's user wrote, can pass for them.
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
	// requestHead is how many bytes of a request are searched for the ids.
	requestHead = 1024
	// maxNesting is how deep the ids are: KillRequest { ContainerProcess { ContainerID.
	maxNesting = 3
)

// skip removes a prefix from text and reports whether it was there.
func skip(text *[]byte, prefix string) bool {
	if len(*text) < len(prefix) || string((*text)[:len(prefix)]) != prefix {
		return false
	}
	*text = (*text)[len(prefix):]
	return true
}

// quoted returns the text before and after the next quote; nil where there is none. Ids
// contain nothing that would be escaped.
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
