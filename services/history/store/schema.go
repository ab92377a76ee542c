package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pressly/goose/v3"
)

// ErrFormer is the error for opening a database with the former schema.
var ErrFormer = errors.New("it was created by an earlier version of Runnel, whose events cannot be read by this one: " +
	"start with a new data directory (standalone) or a new, empty database, and keep or remove the old one")

// ErrNewer is the error for opening a database whose tables were changed by a later version of Runnel.
var ErrNewer = errors.New("a later version of Runnel has changed its tables, and they are never changed back: " +
	"start that version, or restore a backup that was made before the upgrade")

// generation is the number of schema versions within which migrations only add: indexes, tables, columns with a default.
// Builds of one generation work on each other's databases, so that an upgrade can be rolled back. If earlier builds
// cannot work with a migration, it gets the first version of the next generation, and is applied only after the protocol
// level was raised.
const generation = 1000

// CheckSchema checks for migrations in the database that this build does not contain. If they are of a later generation,
// it returns an error that wraps ErrNewer. If they only add to the schema that this build knows, it logs a warning.
func CheckSchema(ctx context.Context, migrations *goose.Provider, log *slog.Logger) error {
	present, err := migrations.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read its schema version: %w", err)
	}
	sources := migrations.ListSources() // in rising order, never empty
	known := sources[len(sources)-1].Version
	switch {
	case present/generation > known/generation:
		return fmt.Errorf("its schema version is %d, and this build knows versions up to %d: %w", present, known, ErrNewer)
	case present > known:
		log.WarnContext(ctx, "a later version of Runnel has added to the tables of the database; this build does not use what was added",
			"schema", present, "known", known)
	}
	return nil
}
