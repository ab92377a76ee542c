-- +goose Up
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each partition's stream is committed. Written by every append.
CREATE TABLE partitions (
    partition INTEGER NOT NULL PRIMARY KEY,
    stream    TEXT    NOT NULL DEFAULT '',
    sequence  INTEGER NOT NULL DEFAULT 0,
    time_ns   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Who works on each partition.
CREATE TABLE leases (
    partition INTEGER NOT NULL PRIMARY KEY,
    worker    TEXT    NOT NULL DEFAULT '',
    until_ms  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE workers (
    worker        TEXT    NOT NULL PRIMARY KEY,
    seen_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    conversation_id TEXT    NOT NULL PRIMARY KEY,
    kind            INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    creator         TEXT    NOT NULL,
    head            INTEGER NOT NULL,
    head_hash       BLOB    NOT NULL,
    members         INTEGER NOT NULL,
    created_time_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The logs. Deliberately a rowid table: rows are added at its end, so a transaction of events from many
-- conversations writes few pages of rows, and one page of the narrow primary key for each conversation. Clustered by conversation (WITHOUT
-- ROWID) the same load wrote whole pages of rows and split them every few events: 31 instead of 20 microseconds of CPU
-- an event with 64 to a transaction, and half the throughput, measured on two cores with 500 conversations.
CREATE TABLE events (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    time_ms         INTEGER NOT NULL,
    sender          TEXT    NOT NULL,
    command_id      BLOB    NOT NULL, -- 16 bytes
    kind            INTEGER NOT NULL,
    body            BLOB,             -- protobuf; NULL when erased
    salt            BLOB,             -- NULL when erased
    commitment      BLOB,             -- set when erased
    prev_hash       BLOB    NOT NULL,
    hash            BLOB    NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) STRICT;

-- No command twice. The command id leads because it rises with time (UUID version 7): new keys meet in the last pages of
-- the index. With the conversation in front each event dirtied a page of its own here: 42 instead of 31 microseconds of CPU.
CREATE UNIQUE INDEX events_command ON events (command_id, conversation_id, sender);

-- A membership covers the events from joined_seq to left_seq, both included; left_seq is NULL while it lasts.
CREATE TABLE memberships (
    conversation_id TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    joined_seq      INTEGER NOT NULL,
    left_seq        INTEGER,
    PRIMARY KEY (conversation_id, user_id, joined_seq)
) STRICT, WITHOUT ROWID;

-- Lists a user's conversations, and keeps a user from being a member twice at a time.
CREATE UNIQUE INDEX memberships_present ON memberships (user_id, conversation_id) WHERE left_seq IS NULL;

CREATE TABLE cursors (
    conversation_id   TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    delivered_seq     INTEGER NOT NULL,
    delivered_time_ms INTEGER NOT NULL,
    read_seq          INTEGER NOT NULL,
    read_time_ms      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    partition INTEGER NOT NULL,
    stream    TEXT    NOT NULL,
    sequence  INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    payload   BLOB    NOT NULL,
    time_ms   INTEGER NOT NULL,
    PRIMARY KEY (partition, stream, sequence)
) STRICT, WITHOUT ROWID;
