package command

import (
	"os"
	"testing"
)

func TestParse(t *testing.T) {
	wd, _ := os.Getwd()
	const start = "/usr/bin/containerd-shim-runc-traced-v2"
	for _, tt := range []struct {
		name string
		argv []string
		want Line
	}{
		{"start as containerd runs it",
			[]string{start, "-namespace", "k8s.io", "-address", "/run/c.sock", "-publish-binary", "/bin/containerd", "-id", "c1", "start"},
			Line{Action: "start", Namespace: "k8s.io", ID: "c1", Bundle: wd}},
		{"debug, two dashes, joined values",
			[]string{start, "--namespace=ns", "-debug", "-id=c1", "start"},
			Line{Action: "start", Namespace: "ns", ID: "c1", Bundle: wd}},
		{"delete", []string{start, "-namespace", "ns", "-id", "c1", "-bundle", "/b", "delete"},
			Line{Action: "delete", Namespace: "ns", ID: "c1", Bundle: "/b"}},
		{"an id that is an action", []string{start, "-id", "delete", "start"},
			Line{Action: "start", ID: "delete", Bundle: wd}},
		{"info", []string{start, "-info"}, Line{Bundle: wd}},
		{"version", []string{start, "-v"}, Line{Bundle: wd}},
		{"no arguments", []string{start}, Line{Bundle: wd}},
		{"value missing", []string{start, "-id"}, Line{Bundle: wd}},
		{"unknown action", []string{start, "-id", "x", "checkpoint"}, Line{ID: "x", Bundle: wd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Parse(tt.argv)
			if got.Action != tt.want.Action || got.Namespace != tt.want.Namespace || got.ID != tt.want.ID || got.Bundle != tt.want.Bundle {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if len(got.Args) != len(tt.argv)-1 {
				t.Errorf("arguments for the inner shim changed: %q", got.Args)
			}
		})
	}
}
