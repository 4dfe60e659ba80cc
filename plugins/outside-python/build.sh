#!/bin/sh
# Run by plugins/build, which brings componentize-py, the contract, and http_client of words-python.
set -eu
mkdir -p build
echo "package plugin:whole; world whole { include wharf:plugin/handler-plugin@0.1.0; include plugin:http/client; }" >build/whole.wit
componentize-py --wit-path wit/deps/wharf --wit-path http_client.wit --wit-path build/whole.wit --world plugin:whole/whole \
  --import-interface-name wasi:http/types@0.2.9=http_types --import-interface-name wharf:plugin/types@0.1.0=types \
  componentize app -o outside-python.wasm
