-- What each node's virtual machines should be. A removed document stays as a row, so that its epoch
-- never falls: what is done to a domain carries it, and nobody with a smaller one may touch it.
CREATE TABLE vm_documents (
    name        text PRIMARY KEY,
    node_id     text NOT NULL,
    epoch       bigint NOT NULL CHECK (epoch > 0),
    version     bigint NOT NULL CHECK (version > 0),
    fingerprint text NOT NULL,
    document    jsonb NOT NULL,
    updated_at  timestamptz NOT NULL,
    updated_by  text NOT NULL,
    removed_at  timestamptz
);

CREATE INDEX vm_documents_node ON vm_documents (node_id, name) WHERE removed_at IS NULL;
