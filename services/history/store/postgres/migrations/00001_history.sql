-- +goose Up
-- Ids are ASCII and compared bytewise everywhere (COLLATE "C"): the same order as in SQLite and in Go, whatever the database's locale.
CREATE TABLE meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- How far each partition's stream is committed. Written by every append; room in the page keeps the row's versions there.
CREATE TABLE partitions (
    partition integer PRIMARY KEY,
    stream    text    NOT NULL DEFAULT '',
    sequence  bigint  NOT NULL DEFAULT 0,
    time_ns   bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- Who works on each partition. Apart from partitions, so that leases and appends never wait for each other.
CREATE TABLE leases (
    partition integer PRIMARY KEY,
    worker    text    NOT NULL DEFAULT '',
    until_ms  bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

CREATE TABLE workers (
    worker        text COLLATE "C" PRIMARY KEY,
    seen_until_ms bigint NOT NULL
);

CREATE TABLE conversations (
    conversation_id text COLLATE "C" PRIMARY KEY,
    kind            integer NOT NULL,
    name            text    NOT NULL,
    creator         text COLLATE "C" NOT NULL,
    head            bigint  NOT NULL,
    head_hash       bytea   NOT NULL,
    members         integer NOT NULL,
    created_time_ms bigint  NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE events (
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint  NOT NULL,
    time_ms         bigint  NOT NULL,
    sender          text COLLATE "C" NOT NULL,
    command_id      uuid    NOT NULL,
    kind            integer NOT NULL,
    body            bytea,            -- protobuf; NULL when erased
    salt            bytea,            -- NULL when erased
    commitment      bytea,            -- set when erased
    prev_hash       bytea   NOT NULL,
    hash            bytea   NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);

-- No command twice. The command id leads because it rises with time (UUID version 7): new keys meet in the last pages of the index.
CREATE UNIQUE INDEX events_command ON events (command_id, conversation_id, sender);

-- A membership covers the events from joined_seq to left_seq, both included; left_seq is NULL while it lasts.
CREATE TABLE memberships (
    conversation_id text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    joined_seq      bigint NOT NULL,
    left_seq        bigint,
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

CREATE TABLE dead_letters (
    partition integer NOT NULL,
    stream    text    NOT NULL,
    sequence  bigint  NOT NULL,
    reason    text    NOT NULL,
    payload   bytea   NOT NULL,
    time      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, stream, sequence)
);

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
