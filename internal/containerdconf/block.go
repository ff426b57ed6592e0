package containerdconf

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

// A block is what shimtrace has written into a file, which may have other content. Its
// first line says what else is to be undone, and detects later changes; its last line
// ends it.
type block struct {
	start, end int // in bytes
	lines      string
	changed    bool // somebody changed it since
	newline    bool // a line break was added before it
	file       bool // the file was made for it
	made       bool // and the file's directory
}

const (
	begin       = "# Written by \"shimtrace install\"; \"shimtrace install --uninstall\" removes it. "
	withNewline = "With the line break before. "
	withFile    = "With the file. "
	withMade    = "With its directory. "
	checksum    = "Checksum: "
	finish      = "# The end of what \"shimtrace install\" wrote.\n"
)

func sum(lines string) string {
	h := sha256.Sum256([]byte(lines))
	return fmt.Sprintf("%x", h[:8])
}

var errCut = errors.New("the block that shimtrace install wrote has no end: remove it yourself")

// findBlock returns the block in a file; nil if there is none.
func findBlock(content []byte) (*block, error) {
	start := 0
	if !bytes.HasPrefix(content, []byte(begin)) {
		before := bytes.Index(content, []byte("\n"+begin))
		if before < 0 {
			return nil, nil
		}
		start = before + 1
	}
	head, rest, _ := strings.Cut(string(content[start:]), "\n")
	lines, _, ended := strings.Cut(rest, finish)
	if !ended {
		return nil, errCut
	}
	b := &block{start: start, end: start + len(head) + 1 + len(lines) + len(finish), lines: lines}
	b.newline, b.file, b.made = strings.Contains(head, withNewline), strings.Contains(head, withFile), strings.Contains(head, withMade)
	_, was, _ := strings.Cut(head, checksum)
	b.changed = was != sum(lines)
	return b, nil
}

// with returns the content with the block's lines at its end.
func (b block) with(content []byte) []byte {
	head := begin
	if b.newline = len(content) > 0 && content[len(content)-1] != '\n'; b.newline {
		content = append(bytes.Clone(content), '\n')
		head += withNewline
	}
	if b.file {
		head += withFile
	}
	if b.made {
		head += withMade
	}
	return append(bytes.Clone(content), head+checksum+sum(b.lines)+"\n"+b.lines+finish...)
}

// without returns the content as it was before the block.
func (b *block) without(content []byte) []byte {
	if b == nil {
		return content
	}
	start := b.start
	if b.newline && start > 0 {
		start--
	}
	return append(bytes.Clone(content[:start]), content[b.end:]...)
}
