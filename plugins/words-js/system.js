// What the sandbox has instead of a console and timers.

import clock from "wasi:clocks/monotonic-clock@0.2.12";
import standardError from "wasi:cli/stderr@0.2.12";
import { toUtf8 } from "./utf8.js";

// Writes a line to the attempt's log.
export function log(text) {
  standardError.getStderr().blockingWriteAndFlush(toUtf8(text + "\n"));
}

export function sleep(ms) {
  clock.subscribeDuration(ms * 1_000_000).block();
}
