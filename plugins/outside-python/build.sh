#!/bin/sh
# Run by plugins/build, which brings componentize-py, the contract, and http_client of words-python.
set -eu
componentize-py --wit-path wit/deps/wharf --world wharf:plugin/handler-plugin@0.1.0 \
  --wit-path http_client.wit --world plugin:http/client \
  --import-interface-name wasi:http/types@0.2.9=http_types --import-interface-name wharf:plugin/types@0.1.0=types \
  componentize app -o outside-python.wasm
