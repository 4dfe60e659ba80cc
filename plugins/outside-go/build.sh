#!/bin/sh
# Run by plugins/build, which brings Go; the flags are those of words-go.
set -eu
cd "$(dirname "$0")"
wharf bindings go gen
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath \
  -ldflags='-checklinkname=0 -w -X runtime.godebugDefault=gcstoptheworld=2' -o core.wasm .
wharf pack core.wasm -o outside-go.wasm
