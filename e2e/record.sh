#!/bin/bash
# Runs a tier of tests that not every change must pass, and keeps what it printed in docs/runs/NAME.md, or where it failed
# in target/NAME.md, with the date, the commit and the machine:  e2e/record.sh NAME COMMAND [ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
[ "$(id -u)" = 0 ] || { echo "$name: must run as root: the lab makes network namespaces and containers" >&2; exit 1; }
mkdir -p docs/runs target
output=target/$name.txt
begun=$SECONDS
set +e
"$@" 2>&1 | tee "$output"
code=${PIPESTATUS[0]}
set -e
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || commit="$commit with changes"
. /etc/os-release
{
	printf '# `make %s`\n\n' "$name"
	printf '| | |\n|---|---|\n'
	printf '| date | %s |\n' "$(date --utc +%F)"
	printf '| commit | %s |\n' "$commit"
	printf '| machine | %s %s, Linux %s, %s cores, %s GiB |\n' "$ID" "${VERSION_ID:-}" "$(uname -r)" "$(nproc)" \
		"$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)"
	printf '| took | %s min |\n' "$(((SECONDS - begun + 59) / 60))"
	printf '| ended | %s |\n' "$([ "$code" = 0 ] && echo passed || echo "failed, status $code")"
	printf '\n```text\n'
	# What is drawn for terminals is of no use in a file, nor is where this machine keeps things.
	sed -e 's/.*\r//' -e 's/\x1b\[[0-9;]*[A-Za-z]//g' -e "s|${XDG_CACHE_HOME:-$HOME/.cache}|~/.cache|g" \
		-e "s|$PWD/||g" -e 's|/tmp/tmp\.[A-Za-z0-9]*|/tmp/...|g' "$output" | grep -v '^ *\(Compiling\|Downloaded\|Downloading\|Fresh\) ' || true
	printf '```\n'
} >"target/$name.md"
# The last good record stays where this run was none.
kept=target/$name.md
[ "$code" != 0 ] || { kept=docs/runs/$name.md; mv "target/$name.md" "$kept"; }
echo "kept in $kept" >&2
exit "$code"
