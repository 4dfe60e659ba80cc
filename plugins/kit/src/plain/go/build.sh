#!/bin/sh
# Builds tally.wasm. Needs Go 1.24 or later; where there is none, the one that requirements.txt names is fetched into .venv, once.
set -eu
cd "$(dirname "$0")"
if ! command -v go >/dev/null; then
  [ -x .venv/bin/go ] || { python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt; }
  PATH=$PWD/.venv/bin:$PATH
fi
GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags=-w -o tally.wasm .
