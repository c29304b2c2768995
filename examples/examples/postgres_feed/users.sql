-- A table whose changes are told to whoever listens to the channel "users", whoever makes them: by the key of the row, or
-- by nothing for all rows. PostgreSQL sends notifications when the transaction commits, and none if it does not; and one
-- only, if the same is said twice in a transaction.

CREATE TABLE users (
    id   bigint PRIMARY KEY,
    name text NOT NULL
);

CREATE FUNCTION tell_of_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('users', OLD.id::text);
    END IF;
    -- An update may move a row to another key: then it changes both.
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('users', NEW.id::text);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER tell_of_user
    AFTER INSERT OR UPDATE OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION tell_of_user();

-- TRUNCATE fires no trigger of rows.
CREATE FUNCTION tell_of_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('users', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER tell_of_users
    AFTER TRUNCATE ON users
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_users();
