// Bundles the plugin with the packages that it imports, and makes a component of it. An export that the host would call and that is not there
// ends the build.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const { name } = JSON.parse(readFileSync("package.json", "utf8"));

const entry = `
  import { guardedHandler, guardedSubscriber } from "./guard.js";
  import { handler as handling, manifest, subscriber as receiving } from "./words";
  export { manifest };
  export const handler = guardedHandler(handling);
  export const subscriber = guardedSubscriber(receiving);
`;
const output = "build/words.js";
await build({
  stdin: { contents: entry, resolveDir: "." },
  outfile: output,
  bundle: true,
  format: "esm",
  platform: "neutral",
  mainFields: ["module", "main"],
  conditions: ["module", "worker", "browser"],
  target: "es2023",
  external: ["wharf:*", "wasi:*"],
  inject: ["web.js"],
});
execFileSync(
  "componentize-qjs",
  ["--sync", "--wit", "wit", "--world", "words", "--js", output, "--output", `${name}.wasm`],
  { stdio: "inherit" },
);
