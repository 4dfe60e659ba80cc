// QuickJS has no TextEncoder; these are its two halves.

// Standard in every JavaScript, but missing in TypeScript's library without that of browsers.
declare function escape(text: string): string;
declare function unescape(text: string): string;

export function toUtf8(text: string): Uint8Array {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (c) => c.charCodeAt(0));
}

// Throws where the bytes are no UTF-8.
export function fromUtf8(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.slice(at, at + 4096));
  }
  return decodeURIComponent(escape(text));
}
