-- What hosts have written down of themselves, for whoever finds that their leases have run out: whether a host was being
-- stopped, and which suspect it began last. A host has a new number each time that it starts.
CREATE TABLE node_marks (
    node INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    draining INTEGER NOT NULL,
    job INTEGER,                        -- the suspect, as are the next two; null where none was begun
    attempt INTEGER,
    alone INTEGER                       -- no other job runs beside it
);
