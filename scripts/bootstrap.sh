#!/bin/sh
# Make .venv from the lock on a machine that has Python 3.11 or newer and perhaps nothing else. Called by make; safe to run again.
set -eu
cd "$(dirname "$0")/.."
export UV_PYTHON_DOWNLOADS=never

fail() { printf '%s\n' "$@" >&2; exit 1; }

find_python() {
    for name in python3.11 python3 python3.12 python3.13; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$name"; return; }
    done
    fail "Python 3.11 or newer is needed. On Debian: apt-get install python3"
}

# uv at the lock's version and hash, for pip.
pinned_uv() { awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock; }

# The uv of this machine where it has one that runs, else our own in .tools; without python3-venv by pip, without pip by apt (as root).
find_uv() {
    if uv --version >/dev/null 2>&1; then echo uv; return; fi
    if [ ! -x .tools/uv/bin/uv ]; then
        mkdir -p .tools
        pinned_uv > .tools/uv.lock
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            "$python" -m venv .tools/pip && .tools/pip/bin/pip install -q --require-hashes -r .tools/uv.lock --target .tools/uv >&2
        elif "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip install -q --require-hashes -r .tools/uv.lock --target .tools/uv >&2
        elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "installing python3-venv (Debian's Python has neither venv nor pip)" >&2
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv; } >/dev/null
            python=/usr/bin/python3
            "$python" -m venv .tools/pip && .tools/pip/bin/pip install -q --require-hashes -r .tools/uv.lock --target .tools/uv >&2
        else
            fail "Neither uv, python3-venv nor pip is here. On Debian: sudo apt-get install python3-venv, then the same command again."
        fi
    fi
    echo .tools/uv/bin/uv
}

python=$(find_python)
uv=$(find_uv)
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
if ! cmp -s requirements.lock .venv/.lock; then
    echo "environment: installing the locked packages into .venv (some gigabytes, minutes, the first time)"
    # Compiled once here: where PYTHONDONTWRITEBYTECODE is set, every start would compile what it imports again, for seconds.
    "$uv" pip sync --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock
    cp requirements.lock .venv/.lock
fi
# No isolation: the build tools come from the lock too, so nothing unpinned is fetched.
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.complete
