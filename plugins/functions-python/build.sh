#!/bin/sh
# Run by plugins/build, which brings componentize-py.
set -eu
componentize-py --wit-path wit --world functions componentize app -o functions-python.wasm
