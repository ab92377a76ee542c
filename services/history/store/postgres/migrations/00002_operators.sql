-- +goose Up
-- The worker that an operator wants a partition on; empty for any.
ALTER TABLE leases ADD COLUMN wanted text NOT NULL DEFAULT '';

-- Dead letters are listed by key, in the same order as in SQLite and in Go, whatever the database's locale.
ALTER TABLE dead_letters ALTER COLUMN stream TYPE text COLLATE "C";

-- Tokens of a user that were issued at or before this time are worthless.
CREATE TABLE revocations (
    user_id   text COLLATE "C" PRIMARY KEY,
    before_ms bigint NOT NULL
);

CREATE INDEX revocations_time ON revocations (before_ms);
