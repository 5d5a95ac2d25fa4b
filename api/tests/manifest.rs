//! The manifest that users apply is the type that the programs are compiled against.

#[path = "../examples/crd.rs"]
#[allow(dead_code)]
mod crd;

#[test]
fn the_crd_in_manifests_is_that_of_the_type() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/eipbinding-crd.yaml");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == crd::text(),
        "manifests/eipbinding-crd.yaml is not what api/src/eip.rs says; write it anew, in the repository's root, by\n  {}",
        crd::COMMAND
    );
}
