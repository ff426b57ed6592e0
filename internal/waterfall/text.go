package waterfall

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// maxText bounds one printed text in bytes; maxCluster bounds one character with its
// combining marks.
const (
	maxText    = 4 << 10
	maxCluster = 64
)

// Clean makes a recorded text harmless and measurable: at most 4 KiB of valid UTF-8,
// with nothing in it that moves the cursor, starts an escape sequence, changes the
// writing direction or is invisible. Control characters become their pictures ("␛",
// "␊").
func Clean(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	if plain(text) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < 0x20:
			b.WriteRune('\u2400' + r)
		case r == 0x7f:
			b.WriteRune('\u2421')
		case r == utf8.RuneError, unicode.Is(unicode.Cc, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			b.WriteRune(utf8.RuneError)
		case r == '\u200c', r == '\u200d': // joiners, which scripts and emoji need
			b.WriteRune(r)
		case unicode.Is(unicode.Cf, r):
		default:
			b.WriteRune(r)
		}
	}
	return boundClusters(b.String())
}

// plain reports whether text is printable ASCII throughout.
func plain(text string) bool {
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return false
		}
	}
	return true
}

// boundClusters replaces characters with more marks than any script has.
func boundClusters(text string) string {
	var b strings.Builder
	for state := -1; text != ""; {
		var cluster string
		cluster, text, _, state = uniseg.FirstGraphemeClusterInString(text, state)
		if len(cluster) > maxCluster {
			cluster = string(utf8.RuneError)
		}
		b.WriteString(cluster)
	}
	return b.String()
}

// Width returns the terminal cells that a cleaned text takes.
func Width(text string) int {
	if plain(text) {
		return len(text)
	}
	return uniseg.StringWidth(text)
}

// Fit cuts a cleaned text to at most cells; a cut one ends in "…".
func Fit(text string, cells int) string {
	if Width(text) <= cells {
		return text
	}
	if cells < 1 {
		return ""
	}
	head, _ := split(text, cells-1)
	return head + "…"
}

// fitTail cuts a cleaned text to at most cells at its beginning, since names differ at
// their end; a cut one begins with "…".
func fitTail(text string, cells int) string {
	if Width(text) <= cells {
		return text
	}
	if cells < 1 {
		return ""
	}
	for width := Width(text); width > cells-1; width = Width(text) {
		cut := width - (cells - 1)
		head, tail := split(text, cut)
		if head == "" { // the first character is wider than the cut
			_, tail = split(text, cut+1)
		}
		if len(tail) == len(text) {
			return "…"
		}
		text = tail
	}
	return "…" + text
}

// Pad cuts or fills a cleaned text to exactly cells.
func Pad(text string, cells int) string {
	text = Fit(text, cells)
	return text + strings.Repeat(" ", max(0, cells-Width(text)))
}

// PadLeft fills a cleaned text on its left to at least cells.
func PadLeft(text string, cells int) string {
	return strings.Repeat(" ", max(0, cells-Width(text))) + text
}

// split cuts text after at most cells, between characters.
func split(text string, cells int) (head, tail string) {
	used, at := 0, 0
	for rest, state := text, -1; rest != ""; {
		var cluster string
		var w int
		cluster, rest, w, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if used+w > cells {
			break
		}
		used += w
		at += len(cluster)
	}
	return text[:at], text[at:]
}

// wrapText breaks a cleaned text into at most limit lines of at most cells, between
// words where possible; the last ends in "…" if there is more.
func wrapText(text string, cells, limit int) []string {
	var lines []string
	for Width(text) > cells && len(lines) < limit-1 {
		head, tail := split(text, cells)
		if i := strings.LastIndexByte(head, ' '); i > len(head)/2 && !strings.HasPrefix(tail, " ") {
			head, tail = head[:i], head[i:]+tail
		}
		if head == "" {
			break
		}
		lines, text = append(lines, head), strings.TrimLeft(tail, " ")
	}
	return append(lines, Fit(text, cells))
}

// ShortID returns the first 12 characters of a 64-digit hexadecimal id, as nerdctl and
// crictl print it, and any other id unchanged.
func ShortID(id string) string {
	if len(id) != 64 {
		return id
	}
	for i := range len(id) {
		if !strings.ContainsRune("0123456789abcdef", rune(id[i])) {
			return id
		}
	}
	return id[:12]
}

// Duration prints a length of time in at most seven cells: three digits below a
// minute ("1.23ms"), two units above ("3h04m").
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-max(d, -math.MaxInt64))
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d)
	case d < 999500*time.Nanosecond:
		return threeDigits(float64(d)/1e3) + "µs"
	case d < 999500*time.Microsecond:
		return threeDigits(float64(d)/1e6) + "ms"
	case d < 59950*time.Millisecond:
		return threeDigits(d.Seconds()) + "s"
	}
	switch d := d.Round(time.Second); {
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d < 100*24*time.Hour:
		return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

func threeDigits(v float64) string {
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
