-- What plugins keep from one attempt to the next. Keys are texts as bytes: in the order of these, and with any character.
CREATE TABLE wharf.kv (
    plugin text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (plugin, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- How much of it each plugin has: written with every change, since to count it would be to read it all. Who changes a
-- plugin's values holds its row here, so that changes of one plugin are made one after the other.
CREATE TABLE wharf.kv_usage (
    plugin text COLLATE "C" PRIMARY KEY,
    count bigint NOT NULL,
    bytes bigint NOT NULL               -- of keys and values
) WITH (fillfactor = 50);
