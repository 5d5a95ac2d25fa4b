#!/bin/bash
# The long runs: the allocator under floods of Services in the lab, owners without a cluster for five minutes and without
# the API for ten, a hundred migrations, floods of forged heartbeats, a minute of mutated octets for each parser, then
# schedules of the fenced-ownership protocol for an hour, or for as many seconds as the argument says.
set -euo pipefail
cd "$(dirname "$0")/.."
BERTH_SOAK=1 e2e/test.sh allocation_under_fire while_the_cluster_is_away cut_from_the_api elastic_ips_follow tenant:: flood:: many:: \
	whatever_arrives --nocapture
BERTH_SIMULATION_SECONDS="${1:-3600}" exec cargo test --locked --workspace --test simulation -- --nocapture
