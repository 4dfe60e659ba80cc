-- What hosts have written down of themselves, for whoever finds that their leases have run out: whether a host was being
-- stopped, and which suspect it began last. A host has a new number each time that it starts.
CREATE TABLE wharf.node_marks (
    node bigint PRIMARY KEY,
    at bigint NOT NULL,
    draining boolean NOT NULL,
    job bigint,                         -- the suspect, as are the next two; null where none was begun
    attempt integer,
    alone boolean                       -- no other job runs beside it
);
