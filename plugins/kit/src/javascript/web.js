// What packages of npm expect of a browser or of Node.js, in terms of WASI. The bundler puts these in place of the globals of the same names.

import randomness from "wasi:random/random@0.2.12";
import { log } from "./system";
import { fromUtf8, toUtf8 } from "./utf8";

const shown = (value) => {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value}\n${value.stack}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
};
const write = (...values) => log(values.map(shown).join(" "));
export const console = { log: write, info: write, warn: write, error: write, debug: write, trace: write };

export class TextEncoder {
  encoding = "utf-8";
  encode(text = "") {
    return toUtf8(String(text).toWellFormed());
  }
}

export class TextDecoder {
  encoding = "utf-8";
  constructor(label = "utf-8") {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`TextDecoder: only UTF-8 is known, not ${label}`);
  }
  decode(bytes = new Uint8Array()) {
    return fromUtf8(new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength));
  }
}

export const crypto = {
  getRandomValues(array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    bytes.set(randomness.getRandomBytes(bytes.length));
    return array;
  },
  randomUUID() {
    const bytes = randomness.getRandomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};

// No request can be sent from this engine, since its tool cannot bind `wasi:http`.
export const fetch = () => {
  throw new Error("there is no `fetch` in QuickJS: a project of `wharf new --language javascript-web` has it");
};

// Nothing runs beside a handler, or after it: what is to happen later never does. `sleep` of system.js waits.
export const setTimeout = () => 0;
export const clearTimeout = () => {};

export { URL, URLSearchParams } from "./url";
