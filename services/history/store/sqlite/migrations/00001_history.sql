-- +goose Up
-- partitions: the number of partitions. level: the protocol level of the installation.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each partition's stream is committed: the watermark. Written by every append.
CREATE TABLE partitions (
    partition INTEGER NOT NULL PRIMARY KEY,
    stream    TEXT    NOT NULL DEFAULT '',
    epoch     INTEGER NOT NULL DEFAULT 0,
    sequence  INTEGER NOT NULL DEFAULT 0,
    time_ns   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Every epoch that a partition had, kept for ever. last_sequence is NULL for the present one: it ends at the watermark.
-- Events name their partition and epoch by id, which is short: a millisecond clock in every row and its index entry is not.
CREATE TABLE epochs (
    id            INTEGER NOT NULL PRIMARY KEY,
    partition     INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    stream        TEXT    NOT NULL,
    last_sequence INTEGER,
    UNIQUE (partition, epoch)
) STRICT;

-- Stretches of a stream that were lost and that an operator gave up. epoch is the one that began after the loss.
CREATE TABLE losses (
    partition      INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    stream         TEXT    NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    time_ms        INTEGER NOT NULL,
    PRIMARY KEY (partition, epoch)
) STRICT, WITHOUT ROWID;

-- The watermarks that the last backup holds.
CREATE TABLE backups (
    partition INTEGER NOT NULL PRIMARY KEY,
    stream    TEXT    NOT NULL,
    epoch     INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    time_ns   INTEGER NOT NULL
) STRICT;

-- Who works on each partition; wanted is the worker that an operator wants it on, empty for any.
CREATE TABLE leases (
    partition INTEGER NOT NULL PRIMARY KEY,
    worker    TEXT    NOT NULL DEFAULT '',
    until_ms  INTEGER NOT NULL DEFAULT 0,
    wanted    TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE workers (
    worker        TEXT    NOT NULL PRIMARY KEY,
    seen_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- name_seq, name_sender and name_time_ms are of the event that the name comes from. epoch and sequence are the position of
-- the event at head.
CREATE TABLE conversations (
    conversation_id TEXT    NOT NULL PRIMARY KEY,
    kind            INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    name_seq        INTEGER NOT NULL,
    name_sender     TEXT    NOT NULL,
    name_time_ms    INTEGER NOT NULL,
    creator         TEXT    NOT NULL,
    head            INTEGER NOT NULL,
    head_hash       BLOB    NOT NULL,
    members         INTEGER NOT NULL,
    created_time_ms INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    sequence        INTEGER NOT NULL
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
    format          INTEGER NOT NULL,
    body            BLOB,             -- as it was admitted; NULL when erased
    salt            BLOB,             -- NULL when erased
    commitment      BLOB,             -- NULL when it follows from salt and body
    hash            BLOB    NOT NULL, -- also the previous hash of the event at seq + 1
    epoch_id        INTEGER NOT NULL, -- the id in epochs, which has the partition and the epoch
    sequence        INTEGER NOT NULL, -- of its command in the stream
    header_extra    BLOB,             -- NULL when empty
    target          INTEGER,          -- the first seq in header_extra
    PRIMARY KEY (conversation_id, seq)
) STRICT;

-- No command twice. The command id leads because it rises with time (UUID version 7): new keys meet in the last pages of
-- the index. With the conversation in front each event dirtied a page of its own here: 42 instead of 31 microseconds of CPU.
CREATE UNIQUE INDEX events_command ON events (command_id, conversation_id, sender);

-- No position twice, and the order of the feed.
CREATE UNIQUE INDEX events_position ON events (epoch_id, sequence);

-- What refers to a message.
CREATE INDEX events_target ON events (conversation_id, target) WHERE target IS NOT NULL;

-- A membership covers the events from joined_seq to left_seq, both included; left_seq is NULL while it lasts. The positions are
-- those of the two events.
CREATE TABLE memberships (
    conversation_id TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    joined_seq      INTEGER NOT NULL,
    left_seq        INTEGER,
    joined_epoch    INTEGER NOT NULL,
    joined_sequence INTEGER NOT NULL,
    left_epoch      INTEGER,
    left_sequence   INTEGER,
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

-- What became of messages. A message has no row until it is first edited, deleted or answered; 0 stands for none.
CREATE TABLE message_views (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    edit_seq        INTEGER NOT NULL,
    edit_time_ms    INTEGER NOT NULL,
    deleted_seq     INTEGER NOT NULL,
    replies         INTEGER NOT NULL,
    last_reply_seq  INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) STRICT, WITHOUT ROWID;

-- Reactions to messages; seq is of the event that added it.
CREATE TABLE reactions (
    conversation_id TEXT    NOT NULL,
    target          INTEGER NOT NULL,
    user_id         TEXT    NOT NULL,
    emoji           TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, target, user_id, emoji)
) STRICT, WITHOUT ROWID;

CREATE INDEX reactions_seq ON reactions (conversation_id, seq);

-- Commands that were refused, kept for 10 minutes of stream time: the highest attempt of each.
CREATE TABLE refusals (
    partition       INTEGER NOT NULL,
    conversation_id TEXT    NOT NULL,
    sender          TEXT    NOT NULL,
    command_id      BLOB    NOT NULL, -- 16 bytes
    attempt         INTEGER NOT NULL,
    commitment      BLOB    NOT NULL,
    code            INTEGER NOT NULL,
    message         TEXT    NOT NULL,
    field           TEXT    NOT NULL,
    time_ms         INTEGER NOT NULL,
    PRIMARY KEY (partition, conversation_id, sender, command_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX refusals_time ON refusals (partition, time_ms);

-- How far readers of the feed are.
CREATE TABLE feed_cursors (
    reader    TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    PRIMARY KEY (reader, partition)
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

-- Tokens of a user that were issued at or before this time are worthless.
CREATE TABLE revocations (
    user_id   TEXT    NOT NULL PRIMARY KEY,
    before_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_time ON revocations (before_ms);
