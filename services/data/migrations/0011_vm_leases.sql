-- Who may run a machine, by its UUID. A row stays when the machine has stopped, so that the epoch
-- never falls: whoever still runs it with a smaller one has lost the right to. All times are this
-- server's clock.
CREATE TABLE vm_leases (
    uuid        text PRIMARY KEY,
    name        text NOT NULL,
    node_id     text NOT NULL,
    epoch       bigint NOT NULL CHECK (epoch > 0),
    is_held     boolean NOT NULL,
    acquired_at timestamptz NOT NULL,
    renewed_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    acquired_by text NOT NULL
);

CREATE INDEX vm_leases_node ON vm_leases (node_id) WHERE is_held;

-- What the machines with a held lease use: a disk has several keys where it can be reached in
-- several ways.
CREATE TABLE vm_lease_disks (
    uuid text NOT NULL REFERENCES vm_leases ON DELETE CASCADE,
    key  text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('read', 'shared', 'write')),
    path text NOT NULL,
    PRIMARY KEY (uuid, key)
);

CREATE INDEX vm_lease_disks_key ON vm_lease_disks (key);
-- Whatever the program decides, the database has no two writers of one disk.
CREATE UNIQUE INDEX vm_lease_disks_writer ON vm_lease_disks (key) WHERE mode = 'write';
