#!/bin/bash
# Builds Kubernetes beside both programs and the lab, as e2e/images.sh does, and says how long is left.
set -euo pipefail
cd "$(dirname "$0")/.."
logs=target/build
mkdir -p $logs
e2e/crates.sh take
profile=${BERTH_PROFILE:-release}
cargo build --locked --profile "$profile" --quiet --package lab-programs
[ "$profile" = release ] && target=target/release || target=target/debug

# Where there is no terminal to measure, cargo draws its progress for the width it is told.
CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=100 e2e/images.sh >$logs/berth.log 2>&1 &
berth=$!
$target/lab-programs >$logs/kubernetes.log 2>&1 &
kubernetes=$!
trap 'kill $berth $kubernetes 2>/dev/null || true' EXIT

# The last "N MIDDLE M" of a log in thousandths, 1000 where its process is gone.
done_of() {
	local pid=$1 log=$2 middle=$3 numbers
	kill -0 "$pid" 2>/dev/null || { echo 1000; return; }
	numbers=$(tr '\r' '\n' <"$log" | grep --only-matching --extended-regexp "[0-9]+$middle[0-9]+" | tail -n 1 |
		tr --complement --squeeze-repeats '0-9\n' ' ')
	set -- $numbers
	[ $# = 2 ] && [ "$2" -gt 0 ] && echo $(($1 * 1000 / $2)) || echo 0
}

# As measured, on two cores.
[ "$profile" = release ] && berth_share=55 minutes=16 || berth_share=35 minutes=10
begun=$SECONDS
while kill -0 $berth 2>/dev/null || kill -0 $kubernetes 2>/dev/null; do
	of_berth=$(done_of $berth $logs/berth.log /)
	of_kubernetes=$(done_of $kubernetes $logs/kubernetes.log ' of ')
	# Shares of the processors' time, as measured.
	all=$(((of_berth * berth_share + of_kubernetes * (100 - berth_share)) / 100))
	took=$((SECONDS - begun))
	left="about $minutes min left"
	[ $all -lt 250 ] || left="about $((took * (1000 - all) / all / 60 + 1)) min left"
	text="  Berth $((of_berth / 10)) %, Kubernetes $((of_kubernetes / 10)) %, $took s, $left"
	if [ -t 1 ]; then
		printf '\r%s\033[K' "$text"
		sleep 1
	else
		[ $((took % 15)) != 0 ] || echo "$text"
		sleep 1
	fi
done
[ ! -t 1 ] || printf '\r\033[K'
trap - EXIT
for build in "$berth berth" "$kubernetes kubernetes"; do
	wait "${build% *}" || { tail -n 40 "$logs/${build#* }.log" >&2; exit 1; }
done
e2e/crates.sh keep
echo "  built in $((SECONDS - begun)) s"
