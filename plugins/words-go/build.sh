#!/bin/sh
# Builds words-go.wasm. Needs wharf, and Go 1.24 or later; where there is none, the one that requirements.txt names is
# fetched into .venv, once.
set -eu
cd "$(dirname "$0")"
if ! command -v go >/dev/null; then
  [ -x .venv/bin/go ] || { python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt; }
  PATH=$PWD/.venv/bin:$PATH
fi
wharf bindings go gen
# gen/wit/runtime reaches into Go's own runtime, hence checklinkname, and says why garbage is collected in one go.
# Function names stay: trap reports show them.
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath \
  -ldflags='-checklinkname=0 -w -X runtime.godebugDefault=gcstoptheworld=2' -o core.wasm .
wharf pack core.wasm -o words-go.wasm
