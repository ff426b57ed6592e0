package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// answer is what an inner shim wrote in answer to start. containerd takes three
// encodings (core/runtime/v2/shim.go, parseStartResponse): a BootstrapResult in
// protobuf (2.3 and later), the same in JSON (1.7 and later), or nothing but the
// address.
type answer struct {
	raw      []byte
	address  string
	protocol string // "ttrpc", "grpc"
	encode   func(address string) []byte
}

// errNoAnswer says that start's output is none that containerd would understand.
var errNoAnswer = errors.New("not an answer to start")

// parseAnswer reads the inner shim's output. containerd tries protobuf first, but a text
// can happen to be well-formed protobuf. So what starts like JSON or an address is taken
// for that.
func parseAnswer(raw []byte) (answer, error) {
	text := bytes.TrimSpace(raw)
	switch {
	case len(text) == 0:
		return answer{}, fmt.Errorf("%w: it is empty", errNoAnswer)
	case text[0] == '{':
		return parseJSON(raw, text)
	case isAddress(text):
		plain := func(address string) []byte { return bytes.Replace(raw, text, []byte(address), 1) }
		return answer{raw: raw, address: string(text), protocol: "ttrpc", encode: plain}, nil
	}
	return parseResult(raw)
}

func isAddress(text []byte) bool {
	for _, c := range text {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return bytes.Contains(text, []byte("://")) || text[0] == '/' || text[0] == '@'
}

func parseJSON(raw, text []byte) (answer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return answer{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	a := answer{raw: raw, protocol: "ttrpc"}
	if err := json.Unmarshal(fields["address"], &a.address); err != nil {
		return answer{}, fmt.Errorf("%w: address: %w", errNoAnswer, err)
	}
	if p := fields["protocol"]; p != nil {
		if err := json.Unmarshal(p, &a.protocol); err != nil {
			return answer{}, fmt.Errorf("%w: protocol: %w", errNoAnswer, err)
		}
	}
	a.encode = func(address string) []byte {
		fields["address"], _ = json.Marshal(address)
		out, _ := json.Marshal(fields)
		return out
	}
	return a, nil
}

// socketPath returns the Unix socket that the answer names, or why it cannot be
// relayed. An abstract socket's path starts with a zero byte.
func (a answer) socketPath() (string, error) {
	if a.protocol != "ttrpc" {
		return "", fmt.Errorf("protocol %q is not relayed", a.protocol)
	}
	if path, isUnix := strings.CutPrefix(a.address, "unix://"); isUnix {
		return path, nil
	}
	if strings.Contains(a.address, "://") {
		return "", fmt.Errorf("address %q is not relayed: it is no Unix socket", a.address)
	}
	// containerd (pkg/shim, AnonDialer) takes an address without a scheme for an
	// abstract socket.
	return "\x00" + a.address, nil
}
