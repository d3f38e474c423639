-- The last state that a component asked to keep. sha256 is over state as stored.
CREATE TABLE checkpoints (
    node_id    text NOT NULL,
    component  text NOT NULL,
    version    integer NOT NULL,
    format     text NOT NULL CHECK (format = 'msgpack'),
    state      bytea NOT NULL,
    sha256     bytea NOT NULL CHECK (length(sha256) = 32),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, component)
);
