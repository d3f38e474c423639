-- The nodes that share this database, and how they were when they last said so.
CREATE TABLE node (
    node_id      text PRIMARY KEY,
    boot_id      text NOT NULL,
    seq          bigint NOT NULL,
    state        text NOT NULL CHECK (
        state IN ('starting', 'ready', 'failed', 'stopping', 'stopped')
    ),
    phase        integer NOT NULL,
    version      text NOT NULL,
    environment  text NOT NULL,
    roles        text[] NOT NULL,
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL
);

-- One row per process of a node's tree, replaced on each change of its state.
-- (boot_id, seq) is the journal record that the row was made from.
CREATE TABLE component_health (
    node_id    text NOT NULL REFERENCES node ON DELETE CASCADE,
    component  text NOT NULL,
    level      text NOT NULL,
    phase      integer NOT NULL,
    failure    text NOT NULL,
    state      text NOT NULL CHECK (
        state IN ('healthy', 'degraded', 'unhealthy', 'starting', 'stopped')
    ),
    reason     text NOT NULL,
    pid        integer,
    restarts   integer NOT NULL,
    boot_id    text NOT NULL,
    seq        bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, component)
);
