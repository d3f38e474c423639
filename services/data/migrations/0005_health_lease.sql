-- A node's row holds until its lease ends, by this server's clock: a node that is gone can't say so
-- itself. changed_at is since when it is as it is, by the same clock.
ALTER TABLE node
    ADD COLUMN lease_until timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN changed_at  timestamptz NOT NULL DEFAULT now();

-- Whoever LISTENs to novacron_health learns which row is another one; a renewed lease is no news,
-- unless it had run out.
CREATE FUNCTION novacron_health_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
BEGIN
    PERFORM pg_notify('novacron_health', jsonb_build_object(
        'node_id', left(changed->>'node_id', 1000),
        'component', left(coalesce(changed->>'component', ''), 1000)
    )::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER node_came_or_went AFTER INSERT OR DELETE ON node
    FOR EACH ROW EXECUTE FUNCTION novacron_health_changed();
CREATE TRIGGER node_changed AFTER UPDATE ON node
    FOR EACH ROW
    WHEN ((OLD.boot_id, OLD.state, OLD.phase, OLD.version, OLD.environment, OLD.roles)
          IS DISTINCT FROM
          (NEW.boot_id, NEW.state, NEW.phase, NEW.version, NEW.environment, NEW.roles)
          OR OLD.lease_until < now())
    EXECUTE FUNCTION novacron_health_changed();
CREATE TRIGGER component_came_or_went AFTER INSERT OR DELETE ON component_health
    FOR EACH ROW EXECUTE FUNCTION novacron_health_changed();
CREATE TRIGGER component_changed AFTER UPDATE ON component_health
    FOR EACH ROW
    WHEN ((OLD.state, OLD.reason, OLD.pid, OLD.restarts)
          IS DISTINCT FROM (NEW.state, NEW.reason, NEW.pid, NEW.restarts))
    EXECUTE FUNCTION novacron_health_changed();
