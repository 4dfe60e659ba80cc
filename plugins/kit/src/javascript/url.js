// Addresses with an authority, as http and https have them: enough for what packages do with them. Names of hosts are not translated from
// other alphabets.

const PARTS = /^([a-z][a-z0-9+.-]*:)\/\/(?:([^/?#@]*)@)?(\[[^\]]*\]|[^/?#:]*)(?::(\d*))?([^?#]*)(\?[^#]*)?(#.*)?$/iu;
const PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21" };
const SPACE = /^[\u0000-\u0020]+|[\u0000-\u0020]+$/gu;

const escaped = (text) => encodeURI(text).replace(/%25([0-9a-f]{2})/giu, "%$1");
const decoded = (text) => {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
};
const encoded = (text) =>
  encodeURIComponent(text).replaceAll("%20", "+").replace(/[!'()~]/gu, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

// Takes "." and ".." out of a path.
function straightened(path) {
  const parts = [];
  const all = path.split("/").slice(1);
  all.forEach((part, place) => {
    const isLast = place === all.length - 1;
    if (part === "..") parts.pop();
    if (part === "." || part === "..") {
      if (isLast) parts.push("");
    } else parts.push(part);
  });
  return `/${parts.join("/")}`;
}

export class URLSearchParams {
  #pairs = [];
  constructor(from = "") {
    if (typeof from === "string") {
      const parts = from.replace(/^\?/u, "").split("&").filter((part) => part !== "");
      this.#pairs = parts.map((part) => {
        const [name, ...value] = part.split("=");
        return [decoded(name), decoded(value.join("="))];
      });
    } else {
      const pairs = Symbol.iterator in from ? [...from] : Object.entries(from);
      this.#pairs = pairs.map(([name, value]) => [String(name), String(value)]);
    }
  }
  append(name, value) {
    this.#pairs.push([String(name), String(value)]);
  }
  delete(name) {
    this.#pairs = this.#pairs.filter(([known]) => known !== name);
  }
  get(name) {
    return this.#pairs.find(([known]) => known === name)?.[1] ?? null;
  }
  getAll(name) {
    return this.#pairs.filter(([known]) => known === name).map(([, value]) => value);
  }
  has(name) {
    return this.#pairs.some(([known]) => known === name);
  }
  set(name, value) {
    const place = this.#pairs.findIndex(([known]) => known === name);
    this.delete(name);
    this.#pairs.splice(place < 0 ? this.#pairs.length : place, 0, [String(name), String(value)]);
  }
  sort() {
    this.#pairs.sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  }
  forEach(callback) {
    this.#pairs.forEach(([name, value]) => callback(value, name, this));
  }
  keys() {
    return this.#pairs.map(([name]) => name).values();
  }
  values() {
    return this.#pairs.map(([, value]) => value).values();
  }
  entries() {
    return this.#pairs.map((pair) => [...pair]).values();
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  toString() {
    return this.#pairs.map(([name, value]) => `${encoded(name)}=${encoded(value)}`).join("&");
  }
}

export class URL {
  constructor(text, base) {
    let address = String(text).replace(SPACE, "");
    if (base !== undefined && !PARTS.test(address)) {
      const on = new URL(base);
      const [path] = address.split(/[?#]/u);
      if (address.startsWith("//")) address = on.protocol + address;
      else if (path.startsWith("/")) address = on.origin + address;
      else if (path !== "") address = on.origin + on.pathname.replace(/[^/]*$/u, "") + address;
      else address = on.origin + on.pathname + (address.startsWith("?") ? address : on.search + address);
    }
    const found = PARTS.exec(address);
    if (!found || found[3] === "") throw new TypeError(`Invalid URL: ${text}`);
    const [, protocol, user = "", host, port = "", path, search = "", hash = ""] = found;
    this.protocol = protocol.toLowerCase();
    [this.username, this.password = ""] = user.split(":");
    this.hostname = host.toLowerCase();
    this.port = port === PORTS[this.protocol] ? "" : port;
    this.pathname = straightened(escaped(path.replaceAll("\\", "/") || "/"));
    this.hash = hash === "#" ? "" : escaped(hash);
    this.searchParams = new URLSearchParams(search);
    this.#search = search === "?" ? "" : escaped(search);
    this.#unchanged = this.searchParams.toString();
  }
  #search;
  #unchanged;
  static canParse(text, base) {
    try {
      return new URL(text, base) !== null;
    } catch {
      return false;
    }
  }
  get search() {
    const now = this.searchParams.toString();
    if (now === this.#unchanged) return this.#search;
    return now === "" ? "" : `?${now}`;
  }
  set search(text) {
    this.searchParams = new URLSearchParams(String(text));
    this.#unchanged = "";
  }
  get host() {
    return this.hostname + (this.port === "" ? "" : `:${this.port}`);
  }
  get origin() {
    return `${this.protocol}//${this.host}`;
  }
  get href() {
    const secret = this.password === "" ? "" : `:${this.password}`;
    const user = this.username === "" && secret === "" ? "" : `${this.username}${secret}@`;
    return `${this.protocol}//${user}${this.host}${this.pathname}${this.search}${this.hash}`;
  }
  toString() {
    return this.href;
  }
  toJSON() {
    return this.href;
  }
}
