package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
)

// configuration looks at shimtrace's own: mistakes with line and column, variables, and
// who may change or read the file.
func configuration(_ context.Context, s *site) (all []Finding) {
	path, _ := config.Path(s.getenv)
	for _, err := range s.report.Mistakes {
		all = append(all, Finding{Level: Error, What: strings.TrimPrefix(err.Error(), "configuration "+path+": "), Where: path, Do: "correct it: docs/configuration.md has every key, and what a mistake costs"})
	}
	seen := make(map[string]bool)
	for _, l := range s.links {
		_, r := config.Load(l.inner.Inner, s.getenv)
		for _, err := range r.Mistakes {
			if text := err.Error(); !seen[text] && !contains(s.report.Mistakes, text) {
				seen[text] = true
				all = append(all, Finding{Level: Error, What: strings.TrimPrefix(text, "configuration "+path+": "), Where: path, Do: "correct it: docs/configuration.md has every key"})
			}
		}
	}
	for _, err := range s.report.Ignored {
		all = append(all, Finding{Level: Warning, What: err.Error(), Where: "environment", Do: "correct or unset the variable: it counts as not set"})
	}
	for _, key := range s.report.Overrides {
		all = append(all, Finding{Level: Note, What: key + " in the file is overridden by the environment of this shell; the shims have containerd's", Where: path})
	}
	if s.config.Trace.Mode == "off" && len(s.report.Mistakes) == 0 {
		all = append(all, Finding{Level: Warning, What: "tracing is off (mode of [trace])", Where: path, Do: "set mode = \"static\" or \"dynamic\""})
	}
	all = append(all, modeOf(path, s.config)...)
	if len(all) == 0 {
		what := "no mistake in it"
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || path == os.DevNull {
			path, what = config.DefaultPath, "it is not there: every key has its default"
		}
		all = append(all, Finding{Level: OK, What: what, Where: path})
	}
	return all
}

func contains(errs []error, text string) bool {
	for _, err := range errs {
		if err.Error() == text {
			return true
		}
	}
	return false
}

// modeOf looks at who may change the file, which names programs that root runs, and who
// may read its secrets.
func modeOf(path string, cfg config.Config) (all []Finding) {
	var st unix.Stat_t
	if path == os.DevNull || unix.Stat(path, &st) != nil {
		return nil
	}
	switch mode := st.Mode & 0o777; {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid(), mode&0o022 != 0:
		all = append(all, Finding{Level: Error, What: fmt.Sprintf("others may change it (user %d, mode %04o), and it names programs that root runs", st.Uid, mode), Where: path, Do: "chown root " + path + " && chmod go-w " + path})
	case mode&0o004 != 0 && len(cfg.Export.Headers) > 0 || slices.ContainsFunc(cfg.Export.All(), func(t config.Target) bool { return len(t.Headers) > 0 }):
		all = append(all, Finding{Level: Warning, What: fmt.Sprintf("every user may read the headers in it (mode %04o)", mode), Where: path, Do: "chmod 600 " + path})
	}
	return all
}
