#!/bin/sh
# Runs the real claude, from npm, under the real clawd, in a network that has nothing but a loopback, against a model of
# our own: no key, no account and no request ever leaves the machine.
#
#   CLAWD_BIN=…   the daemon to test (default: target/debug/clawd)
#   CLAUDE_BIN=…  a claude that is there already (default: installed into target/real-agents)
#
# Names of stories as arguments play only those. Where that cannot be had it says SKIPPED, loudly, and succeeds; every other failure is one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
clawd=${CLAWD_BIN:-$target/debug/clawd}
claude=${CLAUDE_BIN:-}

skip() {
    echo "SKIPPED real-agents: $1"
    exit 0
}

[ "$(uname -s)" = Linux ] || skip "network namespaces are Linux's"
command -v python3 >/dev/null || skip "there is no python3"
command -v unshare >/dev/null || skip "there is no unshare"
# Root may make a network; others may where users may make namespaces of their own.
if unshare -n true 2>/dev/null; then
    alone="unshare -n --pid --fork --kill-child --mount-proc"
elif unshare -rn true 2>/dev/null; then
    alone="unshare -rn --pid --fork --kill-child --mount-proc"
else
    skip "this machine lets us make no network namespace"
fi

if [ -z "$claude" ]; then
    command -v npm >/dev/null || skip "there is no npm"
    cache=$target/real-agents
    mkdir -p "$cache"
    if [ ! -x "$cache/node_modules/.bin/claude" ]; then
        npm install --prefix "$cache" --no-audit --no-fund --loglevel=error \
            @anthropic-ai/claude-code >&2 || skip "npm cannot install @anthropic-ai/claude-code"
    fi
    claude=$(readlink -f "$cache/node_modules/.bin/claude")
fi

if [ ! -x "$clawd" ]; then
    echo "error: $clawd is not there; run \`cargo build\`, or set CLAWD_BIN" >&2
    exit 1
fi
echo "claude: $("$claude" --version)"
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
# A world of processes of its own as well, so that whatever happens nothing of it is left.
$alone python3 "$here/real_agents/run.py" "$(readlink -f "$clawd")" claude "$claude" "$@"
