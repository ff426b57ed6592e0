package waterfall

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ns", 950: "950ns", 1500: "1.50µs", 99_960: "100µs", 999_499: "999µs", 999_500: "1.00ms",
		123 * ms: "123ms", 999_600_000: "1.00s", 12340 * ms: "12.3s", 59_949 * ms: "59.9s", 59_950 * ms: "1m00s",
		3599_600 * ms: "1h00m", 3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d02h", 1<<63 - 1: "106751d",
		-1 << 63: "-106751d", -5 * ms: "-5.00ms",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, tt := range []struct {
		text  string
		cells int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcd", 1, "…"}, {"abcd", 0, ""},
		{"容器", 4, "容器"}, {"容器", 3, "容…"}, {"容器", 2, "…"},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
	} {
		if got := Fit(tt.text, tt.cells); got != tt.want {
			t.Errorf("Fit(%q, %d) = %q, want %q", tt.text, tt.cells, got, tt.want)
		}
		if got := Width(Pad(tt.text, tt.cells)); got != tt.cells {
			t.Errorf("Pad(%q, %d) takes %d cells", tt.text, tt.cells, got)
		}
	}
}

func TestShortID(t *testing.T) {
	for id, want := range map[string]string{sandboxID: "4f2a9c1b7e30", "web": "web", sandboxID[:63] + "g": sandboxID[:63] + "g"} {
		if got := ShortID(id); got != want {
			t.Errorf("ShortID(%q) = %q, want %q", id, got, want)
		}
	}
}
