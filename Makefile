# Each target is one line; what it does is in the script or program it calls.

.PHONY: demo demo-down test unit e2e check fmt clippy deny deps doc images bench bench-takeover bench-eip soak kind
demo:      ; e2e/demo.sh
demo-down: ; target/release/lab down --name demo
test: unit e2e
unit:      packages ; cargo test --locked
e2e:       ; e2e/test.sh
check: fmt clippy deps deny doc
fmt:       ; cargo fmt --all --check
clippy:    ; cargo clippy --locked --workspace --all-targets -- -D warnings
deps:      ; .ci/dependencies.sh
deny:      ; .ci/deny.sh
doc:       ; RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
images:    ; e2e/images.sh
bench:     ; e2e/bench.sh
bench-takeover: ; e2e/takeover.sh
bench-eip: packages ; cargo bench --locked --package berth-announcer --bench translate
soak:      ; e2e/soak.sh
kind:      ; e2e/kind.sh
.PHONY: packages
packages:  ; e2e/packages.sh
