// Counts the words of a text: one chunk for each line as it is counted, the totals as the result.

import attempt from "wharf:plugin/attempt@0.1.0";
import type { Failure, Handler, Job } from "wharf:plugin/handler@0.1.0";
import type { Manifest } from "wharf:plugin/manifest@0.1.0";
import type { Message, Subscriber } from "wharf:plugin/subscriber@0.1.0";
import { manifest as text } from "./manifest.js";
import { log, sleep } from "./system.js";
import { fromUtf8, toUtf8 } from "./utf8.js";

interface Order {
  text: string;
  "pause-ms"?: number;
  fail?: "retry" | "retry-after" | "discard" | "panic";
}

export const manifest: Manifest = { describe: () => text };

export const handler: Handler = {
  // `count` is the only task that the manifest declares: the host sends no other.
  handle(job: Job): Uint8Array {
    const order = parsed(job.payload);
    if (order.fail) fail(order.fail);
    return json(count(order));
  },
};

export const subscriber: Subscriber = {
  receive(message: Message): Uint8Array {
    const words = lines(parsed(message.payload).text).reduce((sum, line) => sum + wordsOf(line), 0);
    return json({ words, language: "typescript" });
  },
};

function count(order: Order) {
  const all = lines(order.text);
  const totals = { lines: 0, words: 0, characters: lengthOf(order.text) };
  for (const line of all) {
    if (attempt.cancelled()) throw discard(`cancelled after line ${totals.lines} of ${all.length}`);
    const words = wordsOf(line);
    totals.lines += 1;
    totals.words += words;
    emit({ line: totals.lines, words });
    attempt.progress(totals.lines / all.length, `line ${totals.lines} of ${all.length}`);
    if (order["pause-ms"]) sleep(order["pause-ms"]);
  }
  return totals;
}

function lines(text: string): string[] {
  const all = text.split("\n");
  // What ends with a line's end has no line after it.
  if (all.at(-1) === "") all.pop();
  return all;
}

// One after the other: an array of them all would need many times the memory of the text.
function lengthOf(all: Iterable<unknown>): number {
  let length = 0;
  for (const _ of all) length += 1;
  return length;
}

const wordsOf = (line: string) => lengthOf(line.matchAll(/\P{White_Space}+/gu));

// Fails as the order asks: to see what the host makes of it.
function fail(how: NonNullable<Order["fail"]>): never {
  log(`failing on request: ${how}`);
  switch (how) {
    case "retry":
      throw { tag: "retry", val: "asked to fail" } satisfies Failure;
    case "retry-after":
      throw { tag: "retry-after", val: ["asked to fail", 1000] } satisfies Failure;
    case "discard":
      throw discard("asked to fail");
    case "panic":
      throw new TypeError("asked to panic"); // what no handler expects
  }
}

// What a function of the contract may fail with is thrown as it is; anything else is a mistake of the plugin.
const discard = (why: string): Failure => ({ tag: "discard", val: why });

function parsed(payload: Uint8Array): Order {
  let order: unknown;
  try {
    order = JSON.parse(fromUtf8(payload));
  } catch (error) {
    throw discard(`the payload is not {"text": "..."}: ${error}`);
  }
  if (!isOrder(order)) throw discard('the payload is not {"text": "..."}: it has no text');
  return order;
}

// The rest is as the manifest's schema says: the host has checked it.
const isOrder = (value: unknown): value is Order =>
  typeof value === "object" && value !== null && "text" in value && typeof value.text === "string";

function emit(value: unknown): void {
  try {
    attempt.emit(json(value));
  } catch (why) {
    throw discard(why instanceof Error ? why.message : String(why));
  }
}

const json = (value: unknown) => toUtf8(JSON.stringify(value) + "\n");
