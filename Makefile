# Each target is one line; what it does is in the script or program it calls.

help:      ; @sed -n 's/^\([a-z0-9-]*\): .*/\1/p' $(MAKEFILE_LIST) | paste -sd ' ' -; echo 'README.md says what for.'
.PHONY: help demo demo-down test unit e2e compat compat-stock upgrade soak check fmt clippy deny deps doc advisories sbom images bench bench-takeover bench-control-plane bench-eip bench-bgp kind kind-here
demo:      ; e2e/demo.sh
demo-down: ; [ ! -x target/debug/lab ] || target/debug/lab down --name demo
test:      ; e2e/test.sh --not kubeadm
unit:      packages ; cargo test --locked
e2e:       ; e2e/test.sh --suite lab --suite product --suite real_nodes --suite kubeadm --suite black_box --suite other_kernel
compat:    ; e2e/record.sh compat e2e/compat.sh
compat-stock: ; KUBE_VIP="$(KUBE_VIP)" CCM="$(CCM)" e2e/record.sh compat-stock e2e/compat-stock.sh
soak:      ; e2e/record.sh soak e2e/soak.sh
check: fmt clippy deps deny doc
fmt:       ; cargo fmt --all --check
clippy:    ; cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
deps:      ; .ci/dependencies.sh
deny:      ; .ci/deny.sh
advisories: ; .ci/deny.sh advisories
sbom:      ; .ci/sbom.sh
doc:       ; RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
images:    ; e2e/images.sh
upgrade:   ; e2e/upgrade.sh $(BEFORE)
bench:     ; e2e/bench.sh
bench-takeover: ; e2e/takeover.sh
bench-control-plane: ; e2e/control-plane.sh
bench-eip: packages ; cargo bench --locked --package berth-announcer --bench translate
bench-bgp: packages ; cargo bench --locked --package berth-bgp-speaker --bench prefixes
kind:      ; e2e/kind.sh
kind-here: ; e2e/kind-here.sh
.PHONY: packages
packages:  ; e2e/packages.sh
