#!/bin/sh
# Builds words-python.wasm. Needs Python 3.10 or later; what build-requirements.txt names is fetched into .venv, once, and what
# requirements.txt names goes into the component.
set -eu
cd "$(dirname "$0")"
if ! command -v componentize-py >/dev/null; then
  [ -x .venv/bin/componentize-py ] || { python3 -m venv .venv && .venv/bin/pip install -q -r build-requirements.txt; }
  PATH=$PWD/.venv/bin:$PATH
fi
mkdir -p packages
if grep -q '^ *[^# ]' requirements.txt; then
  python3 -m pip install -q --disable-pip-version-check --upgrade --target packages -r requirements.txt
fi
componentize-py --wit-path wit --world plugin componentize -p . -p packages app -o words-python.wasm
