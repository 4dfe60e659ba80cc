#!/bin/sh
# Run by plugins/build, which brings Go. The result is a core module for WASI preview 1, as it is.
set -eu
cd "$(dirname "$0")"
GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -o program-go.wasm .
