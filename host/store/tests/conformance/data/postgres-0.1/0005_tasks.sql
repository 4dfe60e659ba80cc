-- What each host tells of the tasks of its plugins, so that others can take jobs for what only it has: one element for each
-- plugin, as `terms.rs` writes it. And what it makes ready and has no version of yet, each with the patterns to which it will
-- subscribe where these are known. Hosts from before these columns tell neither.
ALTER TABLE wharf.nodes ADD COLUMN tasks text[] NOT NULL DEFAULT '{}', ADD COLUMN coming text[] NOT NULL DEFAULT '{}';
