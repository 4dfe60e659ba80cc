// Jobs a second of graphile-worker, in the configuration that its documentation calls fastest: jobs are fetched and
// completed in batches. Arguments: the address of the database, how many jobs, how many keys.
import { makeWorkerUtils, run } from "graphile-worker";

const [connectionString, jobs, keys] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const BATCH = 1000;
let done = 0;
const worker = {
  connectionString,
  concurrentJobs: 24,
  maxPoolSize: 25,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};
const utils = await makeWorkerUtils({ connectionString });
await utils.migrate();
const quiet = () => () => {};
const { Logger } = await import("graphile-worker");
const runner = await run({
  preset: { worker: { ...worker, logger: new Logger(quiet) } },
  noHandleSignals: true,
  taskList: { noop: async () => void done++ },
});
const began = performance.now();
for (let first = 0; first < jobs; first += BATCH) {
  const spec = (n) => ({
    identifier: "noop",
    payload: { n },
    ...(keys > 0 ? { queueName: `k${n % keys}` } : {}),
  });
  await utils.addJobs(Array.from({ length: Math.min(BATCH, jobs - first) }, (_, n) => spec(first + n)));
}
const left = () =>
  utils.withPgClient(async (client) => {
    const { rows } = await client.query("SELECT count(*)::int AS left FROM graphile_worker.jobs");
    return rows[0].left;
  });
while (done < jobs || (await left()) > 0) await new Promise((wake) => setTimeout(wake, 2));
console.log(Math.round(jobs / ((performance.now() - began) / 1000)));
await runner.stop();
await utils.release();
