-- Says whose tables these are: a schema without it, and without the tables of the first version, is another program's.
CREATE TABLE wharf.mark (
    application text NOT NULL,
    layout integer NOT NULL             -- tables of another one are not brought to this by scripts like this
);
INSERT INTO wharf.mark VALUES ('wharf', 1);

-- Who holds which number of the lowest bits of job ids, until when. A host makes only ids that are reserved for its number,
-- and whoever holds the number next begins where they end. The sequence `sources` says which number was given out last:
-- hosts of the first version draw theirs from it.
CREATE TABLE wharf.source_holds (
    number integer PRIMARY KEY,
    holder bigint NOT NULL,             -- drawn by each host that starts
    until bigint NOT NULL,
    below bigint NOT NULL               -- of its ids those below this are reserved, or were
) WITH (fillfactor = 30);
INSERT INTO wharf.source_holds SELECT number, 0, 0, 0 FROM generate_series(0, 1023) AS number;

-- How long the leases of the claim are: one that ends later than that from now was given by a clock that was set back since.
-- Hosts of the first version do not say it.
ALTER TABLE wharf.held ADD COLUMN lease bigint;
