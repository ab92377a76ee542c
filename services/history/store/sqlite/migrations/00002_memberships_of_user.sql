-- +goose Up
-- Digests of all memberships of a user, and those that changed recently: read from the index alone.
CREATE INDEX memberships_of_user ON memberships (user_id, conversation_id, joined_seq, left_seq);
