//! What a kind cluster needs on a machine that has neither Docker nor a registry: the programs, and a node image of
//! Debian's packages, of kind's own files and of the Kubernetes that the lab builds (`e2e/kind/node`).

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lab_programs::{cache, kind, kubernetes};

use crate::{
    image::{self, berth::pause_reference},
    packages::Packages,
    real_node,
};

/// Docker's client.
const DOCKER: Packages = Packages {
    kind: "docker",
    names: || Ok(vec!["docker.io".into()]),
    needed: &["usr/bin/docker"],
};

/// What was made ready.
pub struct KindNode {
    /// Folders for `PATH`: kind, a Docker of today, containerd, runc, kubectl.
    pub programs: Vec<PathBuf>,
    /// The node's root file system, for `docker import`.
    pub archive: PathBuf,
}

/// Builds and fetches what is not there yet; minutes the first time.
pub fn prepare() -> Result<KindNode> {
    let kubernetes = kubernetes::build()?;
    let kubeadm = kubernetes::kubeadm()?;
    let kind = kind::build()?;
    let (docker, runtime) = (DOCKER.fetch()?, real_node::packages()?);
    let archive = archive(&kubernetes, &kubeadm, &kind)?;
    Ok(KindNode {
        programs: vec![
            kind,
            docker.join("usr/bin"),
            runtime.join("usr/bin"),
            runtime.join("usr/sbin"),
            kubernetes,
        ],
        archive,
    })
}

fn archive(kubernetes: &Path, kubeadm: &Path, kind: &Path) -> Result<PathBuf> {
    let folder = cache::folder(
        "kind-node",
        &key([kubernetes, kubeadm, kind])?,
        |folder| folder.join("node.tar").is_file(),
        |unfinished| make(unfinished, kubernetes, kubeadm),
    )?;
    Ok(folder.join("node.tar"))
}

/// Whatever the node is made of changes it.
fn key(sources: [&Path; 3]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    (sources.map(Path::file_name), pause_reference()).hash(&mut hasher);
    [include_str!("image/berth.rs"), include_str!("image/kubernetes.rs")].hash(&mut hasher);
    let mut files =
        fs::read_dir(files())?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    for file in files {
        fs::read(&file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
    }
    Ok(format!("{}-{:016x}", kubernetes::version()?, hasher.finish()))
}

fn make(folder: &Path, kubernetes: &Path, kubeadm: &Path) -> Result<()> {
    eprintln!("making a node image for kind (once; a minute)");
    let (root, images) = (folder.join("root"), folder.join("images"));
    let version = kubernetes::version()?;
    image::kubernetes::write_all(kubernetes, &version, &images)?;
    // Whatever debootstrap mounts is gone with the namespace, however it ends.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"])
        .arg(files().join("make.sh"))
        .arg(&root)
        .env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()))
        .env("KIND", kind::source()?)
        .env("KUBERNETES", kubernetes)
        .env("KUBEADM", kubeadm)
        .env("VERSION", version)
        .env("IMAGES", &images)
        .env("SANDBOX", pause_reference());
    run(&mut command)?;
    let archive = folder.join("node.tar");
    run(Command::new("tar")
        .arg("--numeric-owner")
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(&root)
        .arg("."))?;
    for done in [root, images] {
        fs::remove_dir_all(&done).with_context(|| format!("remove {}", done.display()))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    // Standard output is for who asked for the node.
    let status =
        command.stdout(std::io::stderr()).status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kind/node")
}
