#!/usr/bin/env bash
# Fuzzes every target for a share of SECONDS, at least 5 s each: `bash fuzz/smoke.sh 60`. Ends at the first crash, with
# the command that reproduces it. Starts from the committed corpus and leaves the tree as it was, but for the crash's
# input in fuzz/artifacts. The fuzzer's own seed is fixed, so that the same change gets the same answer; to search for
# something new, run a target by hand, longer. Needs a nightly toolchain and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "how long? type: bash fuzz/smoke.sh SECONDS" >&2; exit 2; }
cargo +nightly fuzz --version >/dev/null 2>&1 || {
  echo "no fuzzer here; type: rustup toolchain install nightly && cargo install cargo-fuzz" >&2
  exit 2
}

mapfile -t targets < <(cargo +nightly fuzz list)
[ ${#targets[@]} -gt 0 ] || { echo "fuzz/Cargo.toml names no target" >&2; exit 2; }
share=$((seconds / ${#targets[@]}))
[ "$share" -ge 5 ] || share=5

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

begun=$SECONDS
cargo +nightly fuzz build
echo "built ${#targets[@]} targets in $((SECONDS - begun)) s; each runs for $share s"

# Runs of the whole daemon take long for long inputs; parsers want lines longer than their limits.
max_len() {
  case $1 in
    world | auth_handshake) echo 2048 ;;
    pairing) echo 512 ;;
    *) echo 8192 ;;
  esac
}

for target in "${targets[@]}"; do
  log=$work/$target.log
  mkdir "$work/$target"
  [ ! -d "fuzz/corpus/$target" ] || cp -R "fuzz/corpus/$target/." "$work/$target"
  if ! cargo +nightly fuzz run "$target" "$work/$target" -- -seed=1 -max_total_time="$share" -timeout=20 \
    -rss_limit_mb=2048 -max_len="$(max_len "$target")" -print_final_stats=1 >"$log" 2>&1; then
    grep -av '^#[0-9]' "$log" # all but the fuzzer's progress
    input=$(sed -n 's/.*Test unit written to //p' "$log" | head -n 1)
    echo "FAILED: $target; reproduce: cargo +nightly fuzz run $target ${input#"$PWD/"}" >&2
    exit 1
  fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  [ "${executions:-0}" -gt 0 ] || { cat "$log"; echo "FAILED: $target ran nothing" >&2; exit 1; }
  printf '%-16s %9s executions\n' "$target" "$executions"
done
