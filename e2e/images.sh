#!/bin/sh
# Builds both programs for release and packs the image archives into target/images. Needs no Docker.
set -eu
cd "$(dirname "$0")/.."
cargo build --locked --release --package berth-ccm --package berth-announcer --package berth-e2e
exec target/release/lab image target/images
