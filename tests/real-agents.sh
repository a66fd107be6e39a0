#!/bin/sh
# Runs the real claude and the real codex, from npm, under the real clawd, in a network that has nothing but a loopback,
# against models of our own: no key, no account and no request ever leaves the machine.
#
#   real-agents.sh [AGENT [STORY…]]   one agent, or some of its stories
#   CLAWD_BIN=…                       the daemon to test (default: target/debug/clawd)
#   CLAUDE_BIN=…, CODEX_BIN=…         agents that are there already (default: installed into target/real-agents)
#
# Where that cannot be had it says SKIPPED, loudly, and succeeds; every other failure is one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
clawd=${CLAWD_BIN:-$target/debug/clawd}
agents=${1:-claude codex}
[ $# -eq 0 ] || shift

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

# Prints where an agent's program is, and installs it first if it has to.
program() {
    case $1 in
    claude) given=${CLAUDE_BIN:-} package=@anthropic-ai/claude-code ;;
    codex) given=${CODEX_BIN:-} package=@openai/codex ;;
    *)
        echo "error: there is no agent $1; try claude or codex" >&2
        return 1
        ;;
    esac
    [ -z "$given" ] || {
        echo "$given"
        return
    }
    cache=$target/real-agents
    mkdir -p "$cache"
    if [ ! -x "$cache/node_modules/.bin/$1" ]; then
        npm install --prefix "$cache" --no-audit --no-fund --loglevel=error "$package" >&2 || return 3
    fi
    # What npm installs as codex is a launcher; that the program behind it is run is one of the stories.
    readlink -f "$cache/node_modules/.bin/$1"
}

if [ ! -x "$clawd" ]; then
    echo "error: $clawd is not there; run \`cargo build\`, or set CLAWD_BIN" >&2
    exit 1
fi
command -v npm >/dev/null || [ -n "${CLAUDE_BIN:-}${CODEX_BIN:-}" ] || skip "there is no npm"
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
for agent in $agents; do
    path=$(program "$agent") || {
        [ $? -eq 3 ] || exit 1
        echo "SKIPPED real-agents: npm cannot install $agent"
        continue
    }
    echo "$agent: $("$path" --version 2>/dev/null)"
    # A world of processes of its own as well, so that whatever happens nothing of it is left.
    $alone python3 "$here/real_agents/run.py" "$(readlink -f "$clawd")" "$agent" "$path" "$@"
done
