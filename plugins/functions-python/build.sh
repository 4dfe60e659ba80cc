#!/bin/sh
# Builds functions-python.wasm. Needs Python 3.10 or later; what build-requirements.txt names is fetched into .venv, once.
set -eu
cd "$(dirname "$0")"
if ! command -v componentize-py >/dev/null; then
  [ -x .venv/bin/componentize-py ] || { python3 -m venv .venv && .venv/bin/pip install -q -r build-requirements.txt; }
  PATH=$PWD/.venv/bin:$PATH
fi
componentize-py --wit-path wit --world functions componentize app -o functions-python.wasm
