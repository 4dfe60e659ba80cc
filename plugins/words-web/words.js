// Counts the words of a text, or of a page of the web: one chunk for each line as it is counted, the totals as the result.

import * as attempt from "wharf:plugin/attempt@0.1.0";
import { manifest as text } from "./manifest.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export const manifest = { describe: () => text };

export const handler = {
  // `count` is the only task that the manifest declares: the host sends no other.
  handle: reported(async (job) => {
    const order = parsed(job.payload);
    if (order.fail) fail(order.fail);
    return json(await count(order.text ?? (await page(order.url)), order["pause-ms"]));
  }),
};

export const subscriber = {
  receive: reported(async (message) => {
    const { text } = parsed(message.payload);
    if (text === undefined) throw discard('the payload is not {"text": "..."}: it has no text');
    const words = lines(text).reduce((sum, line) => sum + wordsOf(line), 0);
    return json({ words, language: "javascript-web" });
  }),
};

// An exception that is no failure of the contract traps without a word of where it was: its stack goes to the log, and
// so into the report.
function reported(handle) {
  return async (asked) => {
    try {
      return await handle(asked);
    } catch (thrown) {
      if (thrown instanceof Error) console.error(`${thrown}\n${thrown.stack}`);
      throw thrown;
    }
  };
}

// The operator grants the places: http = ["https://..."]. A redirect is not followed.
async function page(url) {
  let answer, body;
  try {
    answer = await fetch(url);
    body = await answer.text();
  } catch (error) {
    throw { tag: "retry", val: `${url} cannot be had: ${error.message}` };
  }
  if (answer.status !== 200) throw discard(`${url} answers with ${answer.status}`);
  return body;
}

async function count(text, pause) {
  const all = lines(text);
  const totals = { lines: 0, words: 0, characters: lengthOf(text) };
  for (const line of all) {
    if (attempt.cancelled()) throw discard(`cancelled after line ${totals.lines} of ${all.length}`);
    const words = wordsOf(line);
    totals.lines += 1;
    totals.words += words;
    emit({ line: totals.lines, words });
    attempt.progress(totals.lines / all.length, `line ${totals.lines} of ${all.length}`);
    if (pause) await new Promise((over) => setTimeout(over, pause));
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

const wordsOf = (line) => lengthOf(line.matchAll(/\S+/g));

// Fails as the order asks: to see what the host makes of it.
function fail(how) {
  console.error(`failing on request: ${how}`);
  switch (how) {
    case "retry":
      throw { tag: "retry", val: "asked to fail" };
    case "retry-after":
      throw { tag: "retry-after", val: ["asked to fail", 1000n] };
    case "discard":
      throw discard("asked to fail");
    default:
      null.length; // what no handler expects
  }
}

const discard = (why) => ({ tag: "discard", val: why });

function parsed(payload) {
  let order;
  try {
    order = JSON.parse(decoder.decode(payload));
  } catch (error) {
    throw discard(`the payload is not {"text": "..."}: ${error.message}`);
  }
  if (typeof (order?.text ?? order?.url) !== "string") throw discard('the payload is not {"text": "..."}: it has no text');
  return order;
}

function emit(value) {
  try {
    attempt.emit(json(value));
  } catch (why) {
    throw discard(String(why.payload ?? why.message));
  }
}

const json = (value) => encoder.encode(JSON.stringify(value) + "\n");
