package export

import (
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// JournalOptions returns the options of the configured journal.
func JournalOptions(cfg config.Config) journal.Options {
	return journal.Options{
		MaxBytes:     int64(cfg.Journal.MaxBytes),
		SegmentBytes: int64(cfg.Journal.SegmentBytes),
		Shipped:      cfg.Export.Ships(),
		StateDir:     cfg.Relay.StateDir,
	}
}
