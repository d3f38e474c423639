-- Values that a node's components keep sealed. key_id is read from the value itself, so that the
-- two can't differ.
CREATE TABLE sealed_values (
    node_id    text NOT NULL,
    component  text NOT NULL,
    name       text NOT NULL,
    version    bigint NOT NULL,
    sealed     bytea NOT NULL CHECK (length(sealed) BETWEEN 37 AND 131072),
    key_id     text NOT NULL GENERATED ALWAYS AS (encode(substring(sealed FROM 2 FOR 8), 'hex')) STORED,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, component, name)
);

CREATE INDEX sealed_values_key ON sealed_values (node_id, key_id);

-- Each node's keyset as it last was; the keys in it are wrapped under a master key that is not here.
CREATE TABLE keyset_mirror (
    node_id    text PRIMARY KEY,
    generation bigint NOT NULL,
    content    bytea NOT NULL,
    updated_at timestamptz NOT NULL
);

-- How far each node's last re-encryption came.
CREATE TABLE reencryption (
    node_id     text PRIMARY KEY,
    key_id      text NOT NULL,
    moved       bigint NOT NULL,
    unreadable  bigint NOT NULL,
    started_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    finished_at timestamptz
);
