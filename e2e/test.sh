#!/bin/bash
# Runs the tests: builds the programs as released, Kubernetes beside them, then the tests of all crates, and lets
# e2e/src/bin/suites run each. Arguments are those of suites, e.g. `e2e/test.sh --nocapture fenced::`; with `--no-build`
# before them, what was built last is run as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "e2e: must run as root: the lab makes network namespaces and containers" >&2; exit 1; }
e2e/needs.sh e2e cargo go
for argument; do
	case $argument in
	--no-build | --suite | --not | --list | --nocapture | --jobs | --times | --busy-host) ;;
	-*) echo "e2e: $argument is unknown; accepted are parts of names, --no-build (first), --suite NAME, --not NAME, --list," \
		"--nocapture, --jobs N, --times N, --busy-host" >&2; exit 2 ;;
	esac
done

begun=$SECONDS
# What a step took, for the table of the run.
took() { printf '%7d s  %s\n' $((SECONDS - begun)) "$1"; begun=$SECONDS; }

build() {
	e2e/packages.sh qemu-system-x86_64
	e2e/crates.sh take
	took "Debian's packages and crates from the cache"
	# Whoever has begun with the release holds the lock of its folder.
	(cargo build --locked --release --package lab-programs && exec target/release/lab-programs >/dev/null) &
	kubernetes=$! released=
	trap 'kill $kubernetes $released 2>/dev/null || true' EXIT
	# Beside the tests, which have a profile of their own: the last crate of a program keeps one processor busy only.
	mkdir -p target/suites
	e2e/images.sh >target/suites/images.log 2>&1 &
	released=$!
	# The tests are built in the profile of development, as `cargo test` builds them.
	cargo test --locked --workspace --no-run --message-format=json-render-diagnostics >target/suites/messages.json
	took "the tests"
	cargo test --locked --workspace --doc --quiet
	took "the tests of documentation"
	wait $released || { cat target/suites/images.log >&2; exit 1; }
	took "the programs as released, which are built beside them"
	e2e/crates.sh keep
	trap - EXIT
	wait $kubernetes
	took "Kubernetes, and crates into the cache"
}

if [ "${1:-}" = --no-build ]; then
	shift
	[ -s target/suites/messages.json ] || { echo "e2e: nothing was built yet: run it without --no-build" >&2; exit 1; }
else
	build
fi

# What runs under another kernel is the announcer's own test.
BERTH_NETWORK_TESTS=$(sed -n 's/.*"executable":"\([^"]*\/network-[^"]*\)".*/\1/p' target/suites/messages.json)
export BERTH_NETWORK_TESTS
# The lab and both programs as released, whatever the profile of who asks for them.
for program in lab echo berth-ccm berth-announcer; do
	variable=BERTH_${program#berth-}
	variable=${variable^^}
	[ "$program" != lab ] || variable=BERTH_LAB_PROGRAM
	export "$variable=$PWD/target/release/$program"
done
# Kubernetes of a test lives for seconds: it need not collect its garbage often, which is a seventh of its work.
export GOGC=400
exec target/debug/suites --messages target/suites/messages.json "$@"
