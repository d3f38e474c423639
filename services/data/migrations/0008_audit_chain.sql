-- The audit log by node and day of chaining, so that what is too old is dropped and never deleted;
-- beside it signed statements about each node's chain, and what was chained of each source.
--
-- Rows can be added and nothing else. A trigger refuses the rest also to the table's owner, who
-- could remove the trigger; whoever does so is found by verification.
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log takes no %', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

ALTER TABLE audit_log RENAME TO audit_log_1;
ALTER TABLE audit_log_1 RENAME CONSTRAINT audit_log_pkey TO audit_log_1_pkey;
ALTER TABLE audit_log_1
    RENAME CONSTRAINT audit_log_boot_id_journal_seq_key TO audit_log_1_source_key;
DROP INDEX audit_log_node, audit_log_time;

-- fields is json and not jsonb: it gives back the text that was hashed.
CREATE TABLE audit_log (
    version     smallint NOT NULL,
    seq         bigint NOT NULL,
    day         date NOT NULL,
    time        timestamptz NOT NULL,
    node_id     text NOT NULL,
    actor       text NOT NULL,
    action      text NOT NULL,
    subject     text NOT NULL,
    outcome     text NOT NULL,
    fields      json NOT NULL,
    boot_id     text NOT NULL,
    journal_seq bigint NOT NULL,
    prev_hash   bytea NOT NULL,
    hash        bytea NOT NULL,
    signature   bytea NOT NULL,
    key_id      text NOT NULL,
    PRIMARY KEY (node_id, seq, day),
    UNIQUE (node_id, boot_id, journal_seq, day)
) PARTITION BY RANGE (node_id, day);

CREATE INDEX audit_log_time ON audit_log (node_id, time);
CREATE TRIGGER audit_log_refuse BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_log_refuse_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM CURRENT_USER;

-- Attached and not made as a partition: that does not wait for whoever reads the log.
CREATE FUNCTION audit_partition(node text, day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := format('audit_log_%s_%s', substr(md5(node), 1, 12), to_char(day, 'YYYYMMDD'));
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE audit_log)', part);
    EXECUTE format(
        'CREATE TRIGGER audit_log_refuse_truncate BEFORE TRUNCATE ON %I'
        ' FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()', part);
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM CURRENT_USER', part);
    EXECUTE format(
        'ALTER TABLE audit_log ATTACH PARTITION %I FOR VALUES FROM (%L, %L) TO (%L, %L)',
        part, node, day, node, day + 1);
END $$;

CREATE TABLE audit_heads (
    node_id   text PRIMARY KEY,
    seq       bigint NOT NULL,
    hash      bytea NOT NULL,
    day       date NOT NULL,
    time_us   bigint NOT NULL,
    count     bigint NOT NULL,
    previous  bytea NOT NULL,
    kind      text NOT NULL,
    key_id    text NOT NULL,
    signature bytea NOT NULL
);

CREATE TABLE audit_checkpoints (LIKE audit_heads, PRIMARY KEY (node_id, kind, seq));

-- Checkpoints that an anchor replaces may go.
CREATE FUNCTION audit_refuse_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (
        SELECT FROM audit_checkpoints
        WHERE node_id = OLD.node_id AND kind = 'anchor' AND seq > OLD.seq
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit checkpoints take no %', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_checkpoints_refuse BEFORE UPDATE OR DELETE ON audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_checkpoint();
CREATE TRIGGER audit_checkpoints_refuse_truncate BEFORE TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

CREATE TABLE audit_sources (
    node_id text NOT NULL,
    source  text NOT NULL,
    last    bigint NOT NULL,
    day     date NOT NULL,
    PRIMARY KEY (node_id, source)
);

-- The records of version 1 are kept with the day of the latest one so far, which their order in
-- the chain then follows.
CREATE TEMPORARY TABLE audit_move ON COMMIT DROP AS
    SELECT seq, max(least(
        CASE WHEN isfinite(time) THEN (time AT TIME ZONE 'UTC')::date END,
        (now() AT TIME ZONE 'UTC')::date
    )) OVER (PARTITION BY node_id ORDER BY seq) AS day
    FROM audit_log_1;
UPDATE audit_move SET day = (now() AT TIME ZONE 'UTC')::date WHERE day IS NULL;
SELECT audit_partition(found.node_id, found.day) FROM (
    SELECT DISTINCT old.node_id, move.day FROM audit_log_1 old JOIN audit_move move USING (seq)
) found;
INSERT INTO audit_log
    SELECT 1, seq, day, time, node_id, actor, action, subject, outcome, fields::text::json,
        boot_id, journal_seq, prev_hash, hash, signature, key_id
    FROM audit_log_1 JOIN audit_move USING (seq);
INSERT INTO audit_sources
    SELECT node_id, boot_id, max(journal_seq), max(day) FROM audit_log GROUP BY node_id, boot_id;
DROP TABLE audit_log_1;

-- Drops a node's day once an anchor covers all of it.
CREATE FUNCTION audit_drop_day(node text, dropped date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    part text := format('audit_log_%s_%s', substr(md5(node), 1, 12), to_char(dropped, 'YYYYMMDD'));
    last bigint;
BEGIN
    IF to_regclass(part) IS NULL THEN
        RETURN false;
    END IF;
    SELECT max(seq) INTO last FROM audit_log WHERE node_id = node AND day = dropped;
    IF last > coalesce((
        SELECT max(seq) FROM audit_checkpoints WHERE node_id = node AND kind = 'anchor'
    ), 0) THEN
        RAISE EXCEPTION 'no anchor covers % up to record %', dropped, last
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('DROP TABLE %I', part);
    RETURN true;
END $$;
