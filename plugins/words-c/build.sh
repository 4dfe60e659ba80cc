#!/bin/sh
# Builds words-c.wasm. Needs wharf, and zig; where there is none, the one that requirements.txt names is fetched into .venv, once.
set -eu
cd "$(dirname "$0")"
if command -v zig >/dev/null; then
  cc="zig cc"
else
  [ -x .venv/bin/python-zig ] || { python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt; }
  cc=".venv/bin/python -m ziglang cc"
fi
wharf bindings c gen
# The stack is 64 KiB of each sandbox; line tables bring the functions' names, which trap reports show.
$cc --target=wasm32-wasi -mexec-model=reactor -std=c23 -D_GNU_SOURCE -Wall -Wextra -Os -gline-tables-only \
  -Wl,-z,stack-size=65536 words.c json.c gen/plugin.c gen/plugin_component_type.o -o core.wasm
wharf pack core.wasm -o words-c.wasm
