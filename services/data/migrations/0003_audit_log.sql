-- Signed records; every node's form a chain of hashes, in the order of seq.
-- (boot_id, journal_seq) is where a record comes from, so that none is taken twice.
CREATE TABLE audit_log (
    seq         bigint PRIMARY KEY,
    time        timestamptz NOT NULL,
    node_id     text NOT NULL,
    actor       text NOT NULL,
    action      text NOT NULL,
    subject     text NOT NULL,
    outcome     text NOT NULL,
    fields      jsonb NOT NULL,
    boot_id     text NOT NULL,
    journal_seq bigint NOT NULL,
    prev_hash   bytea NOT NULL,
    hash        bytea NOT NULL,
    signature   bytea NOT NULL,
    key_id      text NOT NULL,
    UNIQUE (boot_id, journal_seq)
);

CREATE INDEX audit_log_node ON audit_log (node_id, seq);
CREATE INDEX audit_log_time ON audit_log (time);
