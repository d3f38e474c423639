-- What the workload monitor measured; domains is a list of objects, one per running domain.
CREATE TABLE workload_samples (
    node_id            text NOT NULL,
    time               timestamptz NOT NULL,
    cpu_percent        real NOT NULL,
    load1              real NOT NULL,
    memory_used_bytes  bigint NOT NULL,
    memory_total_bytes bigint NOT NULL,
    domains            jsonb NOT NULL,
    PRIMARY KEY (node_id, time)
);
