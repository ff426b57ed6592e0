package client

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/ship"
)

// maxHeaderFile bounds a file with a header's value, in bytes.
const maxHeaderFile = 64 << 10

// headerFiles are headers whose values are in files, by name. They are read for each
// upload, so that a changed secret is used at once.
type headerFiles struct {
	target config.Target
	hidden *secrets
}

// read returns the headers. A file that can't be used loses no span: it may be there
// again at the next attempt.
func (h headerFiles) read() (map[string]string, error) {
	headers := make(map[string]string, len(h.target.HeaderFiles))
	for name, path := range h.target.HeaderFiles {
		value, err := readHeader(path)
		if err == nil {
			err = config.CheckHeader(name, value)
		}
		if err != nil {
			return nil, &ship.AwayError{Err: fmt.Errorf("header %s (%s): %s: %s", name, h.target.Keys("header_files"), path, reason(err))}
		}
		h.hidden.add(value)
		headers[name] = value
	}
	return headers, nil
}

func readHeader(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHeaderFile+1))
	if err == nil && len(text) > maxHeaderFile {
		err = fmt.Errorf("it is longer than %d bytes", maxHeaderFile)
	}
	return strings.TrimSpace(string(text)), err
}
