#!/bin/bash
# Keeps what cargo has made of foreign crates outside of the clone, so that the next clean clone need not compile them:
#   e2e/crates.sh take   into target/, where it has nothing yet
#   e2e/crates.sh keep   out of target/
# Cargo judges what it finds by its own fingerprints, so that a cache that is old, half there or lost costs time only.
# Nothing of this workspace is kept: its crates have the same names in every clone. Clones do not wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth/crates
key=$({ cat Cargo.lock rust-toolchain.toml; sed -n '/^\[profile/,$p' Cargo.toml; rustc -vV; echo "${RUSTFLAGS:-}"; } |
	sha256sum | cut -c1-16)

# In target/PROFILE, what belongs to foreign crates.
foreign() {
	find .fingerprint build -mindepth 1 -maxdepth 1 -type d ! -name 'berth-*' ! -name 'lab-programs-*' ! -name 'lab-routers-*'
	find deps -maxdepth 1 -type f \( -name 'lib*' -o -name '*.d' \) \
		! -name '*berth_*' ! -name '*lab_programs-*' ! -name '*lab_routers-*'
}

count() { find "$1/.fingerprint" -mindepth 1 -maxdepth 1 ! -name 'berth-*' ! -name 'lab-programs-*' ! -name 'lab-routers-*' 2>/dev/null | wc -l; }

take() {
	from=$cache/$key
	# Those of other versions are of use as far as they are the same.
	[ -d "$from" ] || from=$(find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name '.*' -printf '%T@ %p\n' 2>/dev/null |
		sort -rn | sed -n '1s/^[^ ]* //p') || true
	[ -n "$from" ] || return 0
	for profile in debug release; do
		[ -d "$from/$profile" ] && [ ! -d "target/$profile/.fingerprint" ] || continue
		mkdir -p "target/$profile"
		cp --archive --reflink=auto "$from/$profile/." "target/$profile/"
	done
	touch "$from"
}

keep() {
	for profile in debug release; do
		[ -d "target/$profile/.fingerprint" ] || continue
		kept=$cache/$key/$profile
		[ "$(count "target/$profile")" -gt "$(count "$kept")" ] || continue
		mkdir -p "$cache/$key"
		new=$(mktemp --directory "$cache/.new-XXXXXX")
		(cd "target/$profile" && foreign | xargs -d '\n' cp --archive --reflink=auto --parents --target-directory="$new")
		# Whoever takes from the old one meanwhile misses files, and compiles those crates.
		[ ! -e "$kept" ] || mv "$kept" "$new.old"
		mv "$new" "$kept"
		rm -rf "$new.old"
	done
	find "$cache" -mindepth 1 -maxdepth 1 -name '.new-*' -mmin +60 -exec rm -rf {} +
	find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name '.*' -printf '%T@ %p\n' | sort -rn | sed '1,2d;s/^[^ ]* //' |
		xargs --no-run-if-empty -d '\n' rm -rf
}

case ${1:-} in
take | keep)
	set +e
	(set -e; "$1")
	[ $? = 0 ] || echo "crates: the cache in $cache is of no use this time" >&2
	;;
*) echo "crates: take or keep" >&2; exit 2 ;;
esac
