package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
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
	targets, unread := shippedTo(dir, cfg.Export)
	now, err := journal.NewSurveyor(dir).Survey(targets...)
	if err != nil {
		return []Finding{{Level: Error, What: "it cannot be read: " + err.Error(), Where: cfg.Journal.Dir}}
	}
	limit := int64(cfg.Journal.MaxBytes)
	f := Finding{Level: OK, What: fmt.Sprintf("%s of %s are used", mebibytes(now.Bytes), mebibytes(limit)), Where: cfg.Journal.Dir}
	all := []Finding{f}
	if free := int64(disk.Bavail) * disk.Bsize; free < limit-now.Bytes {
		all[0] = Finding{Level: Warning, What: fmt.Sprintf("its disk has room for %s, and the journal may still grow by %s: spans are lost when it is full", mebibytes(free), mebibytes(limit-now.Bytes)), Where: cfg.Journal.Dir, Do: "make room, or lower max_bytes of [journal]"}
	}
	for _, err := range unread {
		all = append(all, Finding{Level: Warning, What: err.Error(), Where: cfg.Journal.Dir, Do: "look into the disk; spans arrive again that were shipped before"})
	}
	for i, t := range targets {
		all = append(all, Finding{Level: OK, What: fmt.Sprintf("%d spans wait for the target %s", now.Waiting[i].Spans, config.Target{Name: t.Name}), Where: cfg.Journal.Dir})
	}
	lost, intended := losses.Split(now.Lost)
	if len(lost) > 0 {
		all = append(all, Finding{Level: Note, What: "spans were lost: " + reasons(lost), Where: cfg.Journal.Dir, Do: "docs/journal.md says what each reason means"})
	}
	if len(intended) > 0 {
		all = append(all, Finding{Level: OK, What: "spans were removed or kept out as configured: " + reasons(intended), Where: cfg.Journal.Dir})
	}
	if now.CorruptBytes > 0 {
		all = append(all, Finding{Level: Note, What: fmt.Sprintf("%d bytes in it are damaged, and were passed over", now.CorruptBytes), Where: cfg.Journal.Dir})
	}
	return all
}

// shippedTo returns the configured targets, as far as the journal has been shipped to them,
// and why that is not known of some.
func shippedTo(dir string, e config.Export) (all []journal.Target, unread []error) {
	for _, target := range e.All() {
		cursor, err := journal.ReadCursor(dir, target.Name)
		if err != nil {
			unread = append(unread, err)
		}
		all = append(all, journal.Target{Name: target.Name, Cursor: cursor})
	}
	return all, unread
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func reasons(counts map[string]int) string {
	var texts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		texts = append(texts, fmt.Sprintf("%s: %d", reason, counts[reason]))
	}
	return strings.Join(texts, ", ")
}
