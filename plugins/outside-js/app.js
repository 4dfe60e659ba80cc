// Reaches for the world outside, for the tests: what is denied comes back as the error's text.

import environment from "wasi:cli/environment@0.2.12";
import standardOutput from "wasi:cli/stdout@0.2.12";
import { log, random } from "./system.js";
import { fromUtf8, toUtf8 } from "./utf8.js";

export const manifest = {
  describe: () => `
name = "outside-js"
version = "0.1.0"

[tasks.do]
timeout = "20s"
memory = "64MiB"
`,
};

const orders = {
  say({ text }) {
    standardOutput.getStdout().blockingWriteAndFlush(toUtf8(text + "\n"));
    log(text);
    return null;
  },
  env: () => Object.fromEntries(environment.getEnvironment()),
  time: () => Date.now() / 1000,
  random: () => [random(), random()],
};

export const handler = {
  handle(job) {
    const order = JSON.parse(fromUtf8(job.payload));
    return toUtf8(JSON.stringify(orders[order.do](order)));
  },
};
