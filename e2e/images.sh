#!/bin/sh
# Builds both programs and the lab for release and packs the image archives into target/images. Needs no Docker.
# Arguments go to cargo: --features berth-e2e/measure --bin bench builds one program more. All that is built for release
# is built by this call, so that each foreign crate is compiled once: the packages that are chosen decide its features.
set -eu
cd "$(dirname "$0")/.."
cargo build --locked --release --package berth-ccm --package berth-announcer --package berth-e2e \
	--bin berth-ccm --bin berth-announcer --bin lab --bin echo "$@"
exec target/release/lab image target/images
