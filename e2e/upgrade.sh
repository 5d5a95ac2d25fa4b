#!/bin/bash
# From the programs of another commit to these and back, node by node, with a client on every address:
#   e2e/upgrade.sh [COMMIT]     (the one before this, if none is named)
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "upgrade: must run as root: the lab makes network namespaces" >&2; exit 1; }
e2e/needs.sh upgrade cargo go
commit=$(git rev-parse --verify --quiet "${1:-HEAD^}^{commit}") ||
	{ echo "upgrade: ${1:-HEAD^} is no commit here: a clone of depth 1 has none but its own" >&2; exit 1; }
e2e/images.sh --features berth-e2e/measure --bin upgrade >&2
target/release/lab build >&2
before=target/before/$commit
if [ ! -x "$before/berth-announcer" ] || [ ! -x "$before/berth-ccm" ]; then
	tree=$(mktemp -d)
	trap 'git worktree remove --force "$tree"' EXIT
	git worktree add --quiet --detach "$tree" "$commit"
	cargo build --locked --release --manifest-path "$tree/Cargo.toml" --target-dir target/before/target \
		--package berth-ccm --package berth-announcer >&2
	mkdir -p "$before"
	cp target/before/target/release/berth-{ccm,announcer} "$before"
fi
echo "from $(git log -1 --format='%h (%cs)' "$commit") to $(git log -1 --format='%h (%cs)') and back"
exec target/release/upgrade "$before"
