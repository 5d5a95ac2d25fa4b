#!/bin/sh
# Explores schedules of the fenced-ownership protocol for an hour, or for as many seconds as the argument says.
set -eu
cd "$(dirname "$0")/.."
BERTH_SIMULATION_SECONDS="${1:-3600}" exec cargo test --locked --package berth-membership --test simulation -- --nocapture
