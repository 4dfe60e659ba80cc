// Counts the words of a text: one chunk for each line as it is counted, the totals as the result.

import attempt from "wharf:plugin/attempt@0.1.0";
import { manifest as text } from "./manifest.js";
import { log, sleep } from "./system.js";
import { fromUtf8, toUtf8 } from "./utf8.js";

export const manifest = { describe: () => text };

export const handler = {
  // `count` is the only task that the manifest declares: the host sends no other.
  handle(job) {
    const order = parsed(job.payload);
    if (order.fail) fail(order.fail);
    return json(count(order));
  },
};

export const subscriber = {
  receive(message) {
    const words = lines(parsed(message.payload).text).reduce((sum, line) => sum + wordsOf(line), 0);
    return json({ words, language: "javascript" });
  },
};

function count(order) {
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

function lines(text) {
  const all = text.split("\n");
  // What ends with a line's end has no line after it.
  if (all.at(-1) === "") all.pop();
  return all;
}

// One after the other: an array of them all would need many times the memory of the text.
const lengthOf = (iterator) => {
  let length = 0;
  for (const _ of iterator) length += 1;
  return length;
};

const wordsOf = (line) => lengthOf(line.matchAll(/\P{White_Space}+/gu));

// Fails as the order asks: to see what the host makes of it.
function fail(how) {
  log(`failing on request: ${how}`);
  switch (how) {
    case "retry":
      throw { tag: "retry", val: "asked to fail" };
    case "retry-after":
      throw { tag: "retry-after", val: ["asked to fail", 1000] };
    case "discard":
      throw discard("asked to fail");
    default:
      null.length; // what no handler expects
  }
}

// What a function of the contract may fail with is thrown as it is; anything else is a mistake of the plugin.
const discard = (why) => ({ tag: "discard", val: why });

function parsed(payload) {
  let order;
  try {
    order = JSON.parse(fromUtf8(payload));
  } catch (error) {
    throw discard(`the payload is not {"text": "..."}: ${error.message}`);
  }
  if (typeof order?.text !== "string") throw discard('the payload is not {"text": "..."}: it has no text');
  return order;
}

function emit(value) {
  try {
    attempt.emit(json(value));
  } catch (why) {
    throw discard(why.message);
  }
}

const json = (value) => toUtf8(JSON.stringify(value) + "\n");
