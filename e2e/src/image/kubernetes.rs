//! The images that kubeadm runs a control plane of, out of the lab's own programs: where no registry is asked, they have
//! to be on the nodes before it starts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Image, Layer,
    berth::{find, matches_of_iptables, pause},
};

const CONTROL_PLANE: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The programs of the host that kube-proxy runs.
const PROXY_TOOLS: [&str; 9] = [
    "conntrack",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
    "ipset",
    "iptables",
    "iptables-restore",
    "iptables-save",
    "nft",
];

/// Packs each into `folder`, all with the tag `version`, and the image of the sandboxes.
pub fn write_all(programs: &Path, version: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut images = vec![pause()?, proxy(programs)?.tagged(version)];
    for name in CONTROL_PLANE {
        let image = Image::new(name, &[name]).layer(program(Layer::new(), programs, name)?);
        images.push(image.tagged(version));
    }
    images.iter().map(|image| image.write(folder)).collect()
}

fn proxy(programs: &Path) -> Result<Image> {
    let mut tools = matches_of_iptables()?;
    for tool in PROXY_TOOLS {
        let path = find(tool)?;
        tools = tools.libraries_of(&path)?.copy(&format!("/usr/sbin/{tool}"), &path)?;
    }
    Ok(Image::new("kube-proxy", &["kube-proxy"]).layer(program(tools, programs, "kube-proxy")?))
}

/// Where kubeadm's manifests look for it.
fn program(layer: Layer, programs: &Path, name: &str) -> Result<Layer> {
    layer.copy(&format!("/usr/local/bin/{name}"), &programs.join(name))
}
