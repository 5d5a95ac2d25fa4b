//! The Kubernetes programs, built from `e2e/kubernetes/go.mod`. They lie in a cache outside the source tree.

use std::path::PathBuf;

use anyhow::Result;

use crate::go_tools::{self, GoTools};

const FOLDER: &str = "kubernetes";
const MODULE: &str = "k8s.io/kubernetes";

/// Each program and what `go build` calls it, where that differs.
const PROGRAMS: [(&str, &str); 7] = [
    ("etcd", "server"),
    ("kube-apiserver", "kube-apiserver"),
    ("kube-controller-manager", "kube-controller-manager"),
    ("kube-proxy", "kube-proxy"),
    ("kube-scheduler", "kube-scheduler"),
    ("kubectl", "kubectl"),
    ("kubelet", "kubelet"),
];

/// The Kubernetes version that the module files name, as the programs report it.
pub fn version() -> Result<String> {
    go_tools::version(FOLDER, MODULE)
}

/// The folder of the programs, built if need be. Progress goes to standard error.
pub fn build() -> Result<PathBuf> {
    let linker = format!("-X k8s.io/component-base/version.gitVersion={}", version()?);
    GoTools { folder: FOLDER, module: MODULE, programs: &PROGRAMS, linker }.build()
}
