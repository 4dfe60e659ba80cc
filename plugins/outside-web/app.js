// Sends requests with the web's own functions, for the tests; what is denied comes back as the error's text.

import { getEnvironment } from "wasi:cli/environment@0.2.10";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const manifest = {
  describe: () => `
name = "outside-web"
version = "0.1.0"

[tasks.do]
timeout = "20s"
memory = "128MiB"
`,
};

// Puts variables of the environment in place of their names in braces.
const filled = (text) => getEnvironment().reduce((text, [name, value]) => text.replaceAll(`{${name}}`, value), text);

// What follows `Basic ` is encoded.
const basic = (value) => (value.startsWith("Basic ") ? `Basic ${btoa(value.slice(6))}` : value);

async function send({ url, headers = {}, body }) {
  const filledHeaders = Object.entries(headers).map(([name, value]) => [filled(name), basic(filled(value))]);
  const answer = await fetch(filled(url), {
    method: body ? "POST" : "GET",
    headers: filledHeaders,
    ...(body ? { body: filled(body) } : {}),
  });
  const text = await answer.text();
  const result = { status: answer.status, headers: Object.fromEntries(answer.headers.entries()), body: text };
  console.log(JSON.stringify(result));
  return result;
}

const orders = {
  env: () => Object.fromEntries(getEnvironment()),
  send,
};

export const handler = {
  async handle(job) {
    const order = JSON.parse(decoder.decode(job.payload));
    try {
      return encoder.encode(JSON.stringify(await orders[order.do](order)));
    } catch (error) {
      throw { tag: "discard", val: String(error) };
    }
  },
};
