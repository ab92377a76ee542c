-- +goose Up
-- Ids are ASCII and compared bytewise everywhere (COLLATE "C"): the same order as in SQLite and in Go, whatever the database's locale.

-- partitions: the number of partitions. level: the protocol level of the installation.
CREATE TABLE meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- How far each partition's stream is committed: the watermark. Written by every append; room in the page keeps the row's
-- versions there.
CREATE TABLE partitions (
    partition integer PRIMARY KEY,
    stream    text    NOT NULL DEFAULT '',
    epoch     bigint  NOT NULL DEFAULT 0,
    sequence  bigint  NOT NULL DEFAULT 0,
    time_ns   bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- Every epoch that a partition had, kept for ever. last_sequence is NULL for the present one: it ends at the watermark.
-- Events name their partition and epoch by id, which is short.
CREATE TABLE epochs (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition     integer NOT NULL,
    epoch         bigint  NOT NULL,
    stream        text    NOT NULL,
    last_sequence bigint,
    UNIQUE (partition, epoch)
);

-- Stretches of a stream that were lost and that an operator gave up. epoch is the one that began after the loss.
CREATE TABLE losses (
    partition      integer NOT NULL,
    epoch          bigint  NOT NULL,
    stream         text    NOT NULL,
    first_sequence bigint  NOT NULL,
    last_sequence  bigint  NOT NULL,
    time           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, epoch)
);

-- The watermarks that the last backup holds.
CREATE TABLE backups (
    partition integer PRIMARY KEY,
    stream    text    NOT NULL,
    epoch     bigint  NOT NULL,
    sequence  bigint  NOT NULL,
    time_ns   bigint  NOT NULL
);

-- Who works on each partition; wanted is the worker that an operator wants it on, empty for any. Apart from partitions, so
-- that leases and appends never wait for each other.
CREATE TABLE leases (
    partition integer PRIMARY KEY,
    worker    text    NOT NULL DEFAULT '',
    until_ms  bigint  NOT NULL DEFAULT 0,
    wanted    text    NOT NULL DEFAULT ''
) WITH (fillfactor = 10);

CREATE TABLE workers (
    worker        text COLLATE "C" PRIMARY KEY,
    seen_until_ms bigint NOT NULL
);

-- name_seq, name_sender and name_time_ms are of the event that the name comes from. epoch and sequence are the position of
-- the event at head.
CREATE TABLE conversations (
    conversation_id text COLLATE "C" PRIMARY KEY,
    kind            integer NOT NULL,
    name            text    NOT NULL,
    name_seq        bigint  NOT NULL,
    name_sender     text    NOT NULL,
    name_time_ms    bigint  NOT NULL,
    creator         text COLLATE "C" NOT NULL,
    head            bigint  NOT NULL,
    head_hash       bytea   NOT NULL,
    members         integer NOT NULL,
    created_time_ms bigint  NOT NULL,
    epoch           bigint  NOT NULL,
    sequence        bigint  NOT NULL
) WITH (fillfactor = 50);

-- Columns of fixed width come first, wide ones before narrow ones, so that none is padded.
CREATE TABLE events (
    seq             bigint   NOT NULL,
    time_ms         bigint   NOT NULL,
    sequence        bigint   NOT NULL, -- of its command in the stream
    epoch_id        integer  NOT NULL, -- the id in epochs, which has the partition and the epoch
    kind            smallint NOT NULL,
    format          smallint NOT NULL,
    command_id      uuid     NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    sender          text COLLATE "C" NOT NULL,
    salt            bytea,             -- NULL when erased
    hash            bytea    NOT NULL, -- also the previous hash of the event at seq + 1
    body            bytea,             -- as it was admitted; NULL when erased
    commitment      bytea,             -- NULL when it follows from salt and body
    header_extra    bytea,             -- NULL when empty
    target          bigint,            -- the first seq in header_extra
    PRIMARY KEY (conversation_id, seq)
);

-- No command twice. The command id leads because it rises with time (UUID version 7): new keys meet in the last pages of the index.
CREATE UNIQUE INDEX events_command ON events (command_id, conversation_id, sender);

-- No position twice, and the order of the feed. Positions rise within an epoch, and PostgreSQL fills the pages of such an index if
-- its entries are not longer than two numbers of 8 bytes: longer ones leave every page half empty.
CREATE UNIQUE INDEX events_position ON events (epoch_id, sequence) WITH (fillfactor = 100);

-- What refers to a message.
CREATE INDEX events_target ON events (conversation_id, target) WHERE target IS NOT NULL;

-- A membership covers the events from joined_seq to left_seq, both included; left_seq is NULL while it lasts. The positions are
-- those of the two events.
CREATE TABLE memberships (
    conversation_id text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    joined_seq      bigint NOT NULL,
    left_seq        bigint,
    joined_epoch    bigint NOT NULL,
    joined_sequence bigint NOT NULL,
    left_epoch      bigint,
    left_sequence   bigint,
    PRIMARY KEY (conversation_id, user_id, joined_seq)
);

-- Lists a user's conversations, and keeps a user from being a member twice at a time.
CREATE UNIQUE INDEX memberships_present ON memberships (user_id, conversation_id) WHERE left_seq IS NULL;

CREATE TABLE cursors (
    conversation_id   text COLLATE "C" NOT NULL,
    user_id           text COLLATE "C" NOT NULL,
    delivered_seq     bigint NOT NULL,
    delivered_time_ms bigint NOT NULL,
    read_seq          bigint NOT NULL,
    read_time_ms      bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 50);

-- What became of messages. A message has no row until it is first edited, deleted or answered; 0 stands for none.
CREATE TABLE message_views (
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint  NOT NULL,
    edit_seq        bigint  NOT NULL,
    edit_time_ms    bigint  NOT NULL,
    deleted_seq     bigint  NOT NULL,
    replies         bigint  NOT NULL,
    last_reply_seq  bigint  NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);

-- Reactions to messages; seq is of the event that added it.
CREATE TABLE reactions (
    conversation_id text COLLATE "C" NOT NULL,
    target          bigint NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    emoji           text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    PRIMARY KEY (conversation_id, target, user_id, emoji)
);

CREATE INDEX reactions_seq ON reactions (conversation_id, seq);

-- Commands that were refused, kept for 10 minutes of stream time: the highest attempt of each.
CREATE TABLE refusals (
    partition       integer NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    sender          text COLLATE "C" NOT NULL,
    command_id      uuid    NOT NULL,
    attempt         bigint  NOT NULL,
    commitment      bytea   NOT NULL,
    code            integer NOT NULL,
    message         text    NOT NULL,
    field           text    NOT NULL,
    time_ms         bigint  NOT NULL,
    PRIMARY KEY (partition, conversation_id, sender, command_id)
);

CREATE INDEX refusals_time ON refusals (partition, time_ms);

-- How far readers of the feed are.
CREATE TABLE feed_cursors (
    reader    text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    epoch     bigint  NOT NULL,
    sequence  bigint  NOT NULL,
    PRIMARY KEY (reader, partition)
);

CREATE TABLE dead_letters (
    partition integer NOT NULL,
    stream    text COLLATE "C" NOT NULL,
    sequence  bigint  NOT NULL,
    reason    text    NOT NULL,
    payload   bytea   NOT NULL,
    time      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, stream, sequence)
);

-- Tokens of a user that were issued at or before this time are worthless.
CREATE TABLE revocations (
    user_id   text COLLATE "C" PRIMARY KEY,
    before_ms bigint NOT NULL
);

CREATE INDEX revocations_time ON revocations (before_ms);

-- Ends the transaction unless ok. An append is several statements sent at once, and this is how one of them takes back
-- all of them without a round trip for the decision.
-- +goose StatementBegin
CREATE FUNCTION runnel_require(ok boolean, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT ok THEN
        RAISE EXCEPTION USING ERRCODE = 'RN001', MESSAGE = what;
    END IF;
END
$$;
-- +goose StatementEnd
