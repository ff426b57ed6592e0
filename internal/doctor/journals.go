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
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/private"
)

// journals looks at each journal: its owner, the room on its disk, what it has lost.
func journals(_ context.Context, s *site) (all []Finding) {
	configs, _ := config.Journals(s.getenv)
	for _, cfg := range configs {
		all = append(all, s.journal(cfg)...)
	}
	return all
}

func (s *site) journal(cfg config.Config) []Finding {
	dir := s.in(cfg.Journal.Dir)
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return []Finding{{Level: Error, What: "it is not a directory: no container is traced", Where: cfg.Journal.Dir, Do: "remove it, or set dir of [journal]"}}
	}
	err := private.CheckDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return []Finding{{Level: OK, What: "it is not there yet: the first traced container makes it", Where: cfg.Journal.Dir}}
	case errors.Is(err, os.ErrPermission):
		return []Finding{{Level: Note, What: "only root can look at it", Where: cfg.Journal.Dir, Do: "run this as root"}}
	case err != nil:
		return []Finding{{Level: Error, What: "shims refuse it, and run untraced: " + err.Error(), Where: cfg.Journal.Dir, Do: "chown root and chmod 700 the directory, or set dir of [journal]"}}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return []Finding{{Level: Error, What: "its disk fails: " + err.Error(), Where: cfg.Journal.Dir}}
	}
	if disk.Flags&unix.ST_RDONLY != 0 {
		return []Finding{{Level: Error, What: "its file system is read-only: no container is traced", Where: cfg.Journal.Dir, Do: "mount it read-write, or set dir of [journal]"}}
	}
	lost := make(map[string]int)
	targets := shippedTo(dir, cfg.Export)
	waits := make([]int, len(targets))
	stats, err := journal.Scan(dir, func(r journal.Record) error {
		for i, t := range targets {
			if r.Kind.Traces() && !r.Kept && !t.Has(r) {
				waits[i] += r.Spans
			}
		}
		drops, _ := r.Drops()
		for reason, n := range drops {
			lost[reason] += n
		}
		return nil
	})
	if err != nil {
		return []Finding{{Level: Error, What: "it cannot be read: " + err.Error(), Where: cfg.Journal.Dir}}
	}
	limit := int64(cfg.Journal.MaxBytes)
	f := Finding{Level: OK, What: fmt.Sprintf("%s of %s are used", mebibytes(stats.Bytes), mebibytes(limit)), Where: cfg.Journal.Dir}
	all := []Finding{f}
	if free := int64(disk.Bavail) * disk.Bsize; free < limit-stats.Bytes {
		all[0] = Finding{Level: Warning, What: fmt.Sprintf("its disk has room for %s, and the journal may still grow by %s: spans are lost when it is full", mebibytes(free), mebibytes(limit-stats.Bytes)), Where: cfg.Journal.Dir, Do: "make room, or lower max_bytes of [journal]"}
	}
	for i, t := range targets {
		all = append(all, Finding{Level: OK, What: fmt.Sprintf("%d spans wait for the target %s", waits[i]+t.Waiting(), config.Target{Name: t.Name}), Where: cfg.Journal.Dir})
	}
	if len(lost) > 0 {
		all = append(all, Finding{Level: Note, What: "spans were lost: " + reasons(lost), Where: cfg.Journal.Dir, Do: "docs/journal.md says what each reason means"})
	}
	if stats.CorruptBytes > 0 {
		all = append(all, Finding{Level: Note, What: fmt.Sprintf("%d bytes in it are damaged, and were passed over", stats.CorruptBytes), Where: cfg.Journal.Dir})
	}
	return all
}

// shippedTo returns the configured targets, as far as the journal has been shipped to them.
func shippedTo(dir string, e config.Export) (all []journal.Target) {
	known := journal.Targets(dir)
	for _, target := range e.All() {
		t := journal.Target{Name: target.Name}
		if i := slices.IndexFunc(known, func(k journal.Target) bool { return k.Name == t.Name }); i >= 0 {
			t = known[i]
		}
		all = append(all, t)
	}
	return all
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func reasons(lost map[string]int) string {
	var texts []string
	for reason, n := range lost {
		texts = append(texts, fmt.Sprintf("%s: %d", reason, n))
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}
