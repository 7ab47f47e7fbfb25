#!/bin/sh
# The tour: make an example job, plan it, replay it, look at it, compare it. `make demo` runs this.
# Argument: the folder that holds `blendplan` and `python`.
set -eu
cd "$(dirname "$0")/.."
bin=$1
mkdir -p demo

run() {
  printf '\n$ %s\n' "$*"
  program=$1
  shift
  "$bin/$program" "$@"
}

run python examples/make_requests.py -o demo/requests.jsonl
run blendplan plan demo/requests.jsonl --gpu a100-80g -o demo/plan.arrow
run blendplan replay demo/plan.arrow --engine sim
run blendplan inspect demo/plan.arrow
run blendplan compare demo/requests.jsonl --gpu a100-80g --policies fcfs,dfs,blend
