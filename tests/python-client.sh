#!/bin/sh
# Runs the outside developer's client (tests/python) against a real daemon. Needs python ≥ 3.11 and PyPI, or `websockets`
# installed before; says loudly when it cannot run.
set -eu
cd "$(dirname "$0")/.."

skip() {
    echo "SKIPPED python client: $1" >&2
    exit 0
}

command -v python3 >/dev/null || skip "there is no python3"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || skip "python3 is older than 3.11"

target=${CARGO_TARGET_DIR:-target}
venv=$target/python-client
if ! "$venv/bin/python" -c 'import websockets.asyncio' 2>/dev/null; then
    python3 -m venv "$venv" || skip "python3 has no venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'websockets==15.0.1' ||
        skip "websockets cannot be installed"
fi

cargo build --quiet --package clawd
cargo build --quiet --package clawd-tests --bin scripted-claude
exec "$venv/bin/python" tests/python/e2e.py "$target/debug/clawd" "$target/debug/scripted-claude"
