#!/bin/sh
# Writes what each program is made of into target/sbom, as CycloneDX 1.5 JSON: the crates that it links for x86_64 Linux, with
# versions, hashes and licences. By cargo-cyclonedx, which is built once into a cache folder, in minutes, so CI does not; cargo
# holds it, and what it is made of, to the hashes of its own lock file. Then compares it with what cargo says.
set -eu
cd "$(dirname "$0")/.."
version=0.5.9 triple=x86_64-unknown-linux-gnu
root="${XDG_CACHE_HOME:-$HOME/.cache}/berth/cargo-cyclonedx-$version"
[ -x "$root/bin/cargo-cyclonedx" ] ||
	cargo install --locked --quiet --version "$version" --root "$root" cargo-cyclonedx
# It writes beside the manifest of every package of the workspace.
written() { find . -name '*_bin.cdx.json' -not -path './target/*'; }
# Else it has the time of day and a number drawn at random.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
trap 'written | xargs --no-run-if-empty rm' EXIT
"$root/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target $triple --describe binaries \
	--no-build-deps
mkdir -p target/sbom
for program in ccm announcer; do
	mv "$program/berth-${program}_bin.cdx.json" "target/sbom/berth-$program.cdx.json"
	cargo tree --locked --package "berth-$program" --edges normal --prefix none --no-dedupe --target $triple --format '{p}' |
		.ci/sbom.py "target/sbom/berth-$program.cdx.json" "berth-$program"
done
