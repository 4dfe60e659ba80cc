// What web.js has of the web, for the compiler: the bundler puts it where it is used.

declare const console: Record<"debug" | "error" | "info" | "log" | "trace" | "warn", (...values: unknown[]) => void>;
declare const crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  randomUUID(): string;
};
declare class TextEncoder {
  encode(text?: string): Uint8Array;
}
declare class TextDecoder {
  constructor(label?: string);
  decode(bytes?: ArrayBufferView | ArrayBuffer): string;
}
declare class URLSearchParams implements Iterable<[string, string]> {
  constructor(from?: string | Iterable<[string, string]> | Record<string, string>);
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  [Symbol.iterator](): Iterator<[string, string]>;
}
declare class URL {
  constructor(text: string | URL, base?: string | URL);
  static canParse(text: string, base?: string): boolean;
  protocol: string;
  username: string;
  password: string;
  hostname: string;
  port: string;
  pathname: string;
  hash: string;
  search: string;
  readonly host: string;
  readonly origin: string;
  readonly href: string;
  readonly searchParams: URLSearchParams;
  toJSON(): string;
}
