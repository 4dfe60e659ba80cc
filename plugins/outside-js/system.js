// What the sandbox has instead of a console, timers, and Math.random, which begins anew with the same numbers in each attempt.

import clock from "wasi:clocks/monotonic-clock@0.2.12";
import standardError from "wasi:cli/stderr@0.2.12";
import randomness from "wasi:random/random@0.2.12";
import { toUtf8 } from "./utf8.js";

// Writes a line to the attempt's log.
export function log(text) {
  standardError.getStderr().blockingWriteAndFlush(toUtf8(text + "\n"));
}

export function sleep(ms) {
  clock.subscribeDuration(ms * 1_000_000).block();
}

// As Math.random should.
export function random() {
  const bytes = randomness.getRandomBytes(4);
  return bytes.reduce((sum, byte) => (sum + byte) / 256, 0);
}
