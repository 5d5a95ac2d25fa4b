//! Prints the CustomResourceDefinition as `manifests/eipbinding-crd.yaml` has it.

use berth_api::eip::EipBinding;
use kube_core::CustomResourceExt;

fn main() {
    print!("{}", text());
}

/// The manifest, with the command that makes it.
pub(crate) fn text() -> String {
    let crd = serde_json::to_value(EipBinding::crd()).expect("a CRD is JSON");
    let yaml = serde_saphyr::to_string(&crd).expect("JSON is YAML");
    format!("# Made of api/src/eip.rs by `{COMMAND}`: edit that, not this.\n{yaml}")
}

/// How to write the manifest anew.
pub(crate) const COMMAND: &str =
    "cargo run --quiet --package berth-api --example crd >manifests/eipbinding-crd.yaml";
