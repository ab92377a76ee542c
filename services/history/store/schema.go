package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
)

// ErrFormer is the error of opening a database with the former schema.
var ErrFormer = errors.New("it was created by an earlier version of Runnel, whose events cannot be read by this one: " +
	"start with a new data directory (standalone) or a new, empty database, and keep or remove the old one")

// ErrNewer is the error of opening a database whose schema a later version of Runnel has changed.
var ErrNewer = errors.New("a later version of Runnel has changed its schema, and a schema is never changed back: " +
	"start that version, or restore a backup that was made before the upgrade")

// CheckSchema returns an error that wraps ErrNewer if the database has a migration that this build does not contain. Migrating
// such a database would succeed without a change, and the services would run on tables that they do not know.
func CheckSchema(ctx context.Context, migrations *goose.Provider) error {
	present, err := migrations.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read its schema version: %w", err)
	}
	sources := migrations.ListSources() // in rising order, never empty
	if known := sources[len(sources)-1].Version; present > known {
		return fmt.Errorf("its schema version is %d, and this build knows versions up to %d: %w", present, known, ErrNewer)
	}
	return nil
}
