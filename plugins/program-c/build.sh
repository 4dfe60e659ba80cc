#!/bin/sh
# Run by plugins/build, which brings zig. The result is a core module for WASI preview 1, as it is.
set -eu
cd "$(dirname "$0")"
zig cc --target=wasm32-wasi -std=c23 -D_GNU_SOURCE -Wall -Wextra -Os -s -Wl,-z,stack-size=131072 program.c -o program-c.wasm
