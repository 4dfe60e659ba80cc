#!/bin/sh
# Run by plugins/build, which brings componentize-py.
set -eu
componentize-py --wit-path wit --world outside componentize app -o outside-python.wasm
