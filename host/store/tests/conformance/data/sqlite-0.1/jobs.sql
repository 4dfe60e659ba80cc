-- What Wharf 0.1 had written to a store with a job in each place where one may be.
INSERT INTO names VALUES (1, 'words/count');
INSERT INTO jobs (id, state, grp, key, task, priority, due, attempt, enqueued_at, finished_at, bytes, payload, output)
    VALUES (11, 1, 1, 'a', 1, 0, 1, 0, 1, NULL, 7, 'payload', NULL),
           (12, 1, 1, 'a', 1, 0, 1, 0, 1, NULL, 7, 'payload', NULL),
           (13, 0, 1, 'b', 1, 0, 8000000000000000, 0, 1, NULL, 7, 'payload', NULL),
           (14, 3, 1, 'a', 1, 0, 1, 1, 1, 2, 7, 'payload', 'result');
INSERT INTO ready VALUES (1, 0, 1, 11), (1, 0, 1, 12);
INSERT INTO claims VALUES (5, 7, 1, 9000000000000000, x'0b0000000000000001000000');
INSERT INTO kv VALUES ('words', 'total', x'07');
INSERT INTO kv_usage VALUES ('words', 1, 6);
INSERT INTO node_marks VALUES (7, 1, 0, NULL, NULL, NULL);
