-- What plugins keep from one attempt to the next. Keys are ordered by their bytes.
CREATE TABLE kv (
    plugin TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (plugin, key)
);

-- How much of it each plugin has: written with every change, since to count it would be to read it all.
CREATE TABLE kv_usage (
    plugin TEXT PRIMARY KEY,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL              -- of keys and values
) WITHOUT ROWID;
