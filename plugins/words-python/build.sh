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
world=wharf:plugin/plugin@0.1.0
set -- --wit-path wit
# A plugin that sends requests imports more, which its operator sees.
imports='^[[:space:]]*(from[[:space:]]+|import[[:space:]]+(.*,[[:space:]]*)?)http_client([[:space:],;]|$)'
if grep -rqE --include='*.py' --exclude-dir='.?*' --exclude-dir=packages "$imports" .; then
  mkdir -p build
  echo "package plugin:whole; world whole { include $world; include plugin:http/client; }" >build/whole.wit
  world=plugin:whole/whole
  set -- "$@" --wit-path http_client.wit --wit-path build/whole.wit \
    --import-interface-name wasi:http/types@0.2.9=http_types --import-interface-name wharf:plugin/types@0.1.0=types
fi
componentize-py "$@" --world "$world" componentize -p . -p packages app -o words-python.wasm
