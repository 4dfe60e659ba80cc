// Jobs a second of BullMQ: added in bulk, run by workers with many at once each, removed when done, as its documentation
// has it for throughput. Arguments: the socket of Redis, how many jobs, how many workers, how many at once in each.
import { Queue, Worker } from "bullmq";

const path = process.argv[2];
const [jobs, count, concurrency] = process.argv.slice(3).map(Number);
const BATCH = 1000;
const connection = { path, maxRetriesPerRequest: null };
const queue = new Queue("noop", { connection });
await queue.waitUntilReady();
let done = 0;
const workers = Array.from({ length: count }, () => {
  const options = { connection, concurrency, removeOnComplete: { count: 0 } };
  return new Worker("noop", async () => void done++, options);
});
await Promise.all(workers.map((worker) => worker.waitUntilReady()));
const began = performance.now();
for (let first = 0; first < jobs; first += BATCH) {
  const spec = (_, n) => ({ name: "noop", data: { n: first + n } });
  await queue.addBulk(Array.from({ length: Math.min(BATCH, jobs - first) }, spec));
}
// Run is not yet recorded.
const left = async () => {
  const { waiting, active, completed, failed } = await queue.getJobCounts("waiting", "active", "completed", "failed");
  if (failed > 0) throw new Error(`${failed} jobs failed`);
  return waiting + active + completed;
};
while (done < jobs || (await left()) > 0) await new Promise((wake) => setTimeout(wake, 2));
console.log(Math.round(jobs / ((performance.now() - began) / 1000)));
await Promise.all(workers.map((worker) => worker.close()));
await queue.close();
