-- The last two checkpoints of a component, so that a damaged one leaves the one before it. A row
-- that could not be used is marked; saving removes what is older than the last one not marked.
-- state is an envelope that names the row's node, component and version (format 'envelope'), or
-- the bare state of an earlier program (format 'msgpack'); a newer program may know others.
ALTER TABLE checkpoints
    DROP CONSTRAINT checkpoints_format_check,
    DROP CONSTRAINT checkpoints_pkey,
    ADD COLUMN generation bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
    ADD COLUMN is_refused boolean NOT NULL DEFAULT false,
    ADD PRIMARY KEY (node_id, component, generation);
ALTER TABLE checkpoints ALTER COLUMN generation DROP DEFAULT;
