//! The Kubernetes programs of one release, built from its module files. They lie in a cache outside the source tree,
//! releases side by side.

use std::{env, path::PathBuf};

use anyhow::{Result, bail};

use crate::go_tools::{self, GoTools};

/// The folders of module files: the newest release, which is used unless another is asked for, and the oldest that
/// Berth supports.
const RELEASES: [&str; 2] = ["kubernetes", "kubernetes/oldest"];
const MODULE: &str = "k8s.io/kubernetes";
/// Names another release than the newest, e.g. `1.33.13`.
const VARIABLE: &str = "BERTH_KUBERNETES";

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

/// The Kubernetes version that is used, as the programs report it.
pub fn version() -> Result<String> {
    go_tools::version(folder()?, MODULE)
}

/// The folder of the programs, built if need be. Progress goes to standard error.
pub fn build() -> Result<PathBuf> {
    tools(&PROGRAMS)?.build()
}

/// The folder of kubeadm, which kind's nodes have and the lab's do without, built if need be.
pub fn kubeadm() -> Result<PathBuf> {
    tools(&[("kubeadm", "kubeadm")])?.build()
}

fn tools(programs: &'static [(&'static str, &'static str)]) -> Result<GoTools> {
    let linker = format!("-X k8s.io/component-base/version.gitVersion={}", version()?);
    Ok(GoTools { folder: folder()?, module: MODULE, programs, linker })
}

/// The folder of the release that `BERTH_KUBERNETES` names.
fn folder() -> Result<&'static str> {
    let wanted = env::var(VARIABLE).unwrap_or_default();
    if wanted.is_empty() {
        return Ok(RELEASES[0]);
    }
    let mut versions = Vec::new();
    for folder in RELEASES {
        let version = go_tools::version(folder, MODULE)?;
        if version.trim_start_matches('v') == wanted.trim_start_matches('v') {
            return Ok(folder);
        }
        versions.push(version);
    }
    bail!("{VARIABLE}={wanted}: accepted are {}", versions.join(" and "))
}
