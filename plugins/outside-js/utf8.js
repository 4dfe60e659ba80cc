// QuickJS has no TextEncoder; these are its two halves.

export function toUtf8(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (c) => c.charCodeAt(0));
}

// Throws where the bytes are no UTF-8.
export function fromUtf8(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.slice(at, at + 4096));
  }
  return decodeURIComponent(escape(text));
}
