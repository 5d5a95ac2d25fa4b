#!/bin/sh
# Builds both programs and the lab for release and packs the image archives into target/images. Needs no Docker.
# Arguments go to cargo: --features berth-e2e/measure --bin bench builds one program more. All that is built for release
# is built by this call, so that each foreign crate is compiled once: the packages that are chosen decide its features.
# BERTH_PROFILE=dev makes all of it in target/debug in place of that: quick to build, and not what is shipped.
set -eu
cd "$(dirname "$0")/.."
e2e/needs.sh images cargo
programs=target/release images=target/images
[ "${BERTH_PROFILE:-release}" = release ] || programs=target/debug images=target/debug/images
cargo build --locked --profile "${BERTH_PROFILE:-release}" \
	--package berth-ccm --package berth-announcer --package berth-e2e \
	--bin berth-ccm --bin berth-announcer --bin lab --bin echo "$@"
exec $programs/lab image $images
