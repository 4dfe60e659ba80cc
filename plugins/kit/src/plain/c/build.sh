#!/bin/sh
# Builds tally.wasm. Needs zig; where there is none, the one that requirements.txt names is fetched into .venv, once.
set -eu
cd "$(dirname "$0")"
if command -v zig >/dev/null; then
  cc="zig cc"
else
  [ -x .venv/bin/python-zig ] || { python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt; }
  cc=".venv/bin/python -m ziglang cc"
fi
# Unless it is told, zig gives a program a stack of 16 MiB.
$cc --target=wasm32-wasi -std=c23 -Wall -Wextra -Os -gline-tables-only -Wl,-z,stack-size=131072 main.c -o tally.wasm
