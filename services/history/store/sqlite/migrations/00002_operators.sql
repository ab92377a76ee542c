-- +goose Up
-- The worker that an operator wants a partition on; empty for any.
ALTER TABLE leases ADD COLUMN wanted TEXT NOT NULL DEFAULT '';

-- Tokens of a user that were issued at or before this time are worthless.
CREATE TABLE revocations (
    user_id   TEXT    NOT NULL PRIMARY KEY,
    before_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_time ON revocations (before_ms);
