//! The Kubernetes programs, built from `e2e/kubernetes/go.mod` by Go's tool directives.
//!
//! They lie in a cache outside the source tree, one folder for each state of module files, flags and compiler,
//! so a build is done once and a changed version never meets an old program.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::cache;

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
    let text = fs::read_to_string(modules().join("go.mod")).context("read go.mod")?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("k8s.io/kubernetes "));
    Ok(line
        .context("go.mod requires no k8s.io/kubernetes")?
        .split_whitespace()
        .next()
        .unwrap_or("")
        .to_owned())
}

/// The folder of the programs, built if need be. Progress goes to standard error.
pub fn build() -> Result<PathBuf> {
    cache::folder("kubernetes", &key()?, is_complete, |unfinished| {
        compile(unfinished)?;
        for (name, built) in PROGRAMS {
            if name != built {
                fs::rename(unfinished.join(built), unfinished.join(name))
                    .with_context(|| format!("{built} is missing"))?;
            }
        }
        Ok(())
    })
}

fn is_complete(folder: &Path) -> bool {
    PROGRAMS.iter().all(|(name, _)| folder.join(name).is_file())
}

fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

/// Flags that go into the programs; cgo is off so that they run in any mount namespace.
fn flags() -> Result<Vec<String>> {
    let stamp = format!("-X k8s.io/component-base/version.gitVersion={}", version()?);
    Ok(vec!["-trimpath".into(), "-ldflags".into(), format!("-s -w {stamp}")])
}

fn key() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for name in ["go.mod", "go.sum"] {
        fs::read(modules().join(name)).with_context(|| format!("read {name}"))?.hash(&mut hasher);
    }
    flags()?.hash(&mut hasher);
    let compiler = go(&["env", "GOVERSION", "GOARCH"])?;
    compiler.hash(&mut hasher);
    Ok(format!("{}-{:016x}", version()?, hasher.finish()))
}

fn go(arguments: &[&str]) -> Result<String> {
    let output = go_command()
        .args(arguments)
        .output()
        .context("start go: Go 1.24 or later must be in PATH")?;
    ensure!(
        output.status.success(),
        "go {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn go_command() -> Command {
    let mut command = Command::new("go");
    command.current_dir(modules()).env("CGO_ENABLED", "0");
    command
}

/// One `go build` of all tools; its `-v` prints a line for each package, which is the progress.
fn compile(folder: &Path) -> Result<()> {
    let start = Instant::now();
    let version = version()?;
    eprintln!(
        "building Kubernetes {version} for the lab (once; some minutes on a machine that never did)"
    );
    eprintln!("  fetching modules");
    go(&["mod", "download"])?;
    let total = go(&["list", "-deps", "tool"])?.lines().count();
    let mut child = go_command()
        .args(["build", "-v"])
        .args(flags()?)
        .arg("-o")
        .arg(folder.join(""))
        .arg("tool")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start go build")?;
    let (mut built, mut said, mut errors) = (0, Instant::now(), Vec::new());
    for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
        let line = line?;
        // Package paths have no spaces; diagnostics do.
        if line.contains(' ') {
            errors.push(line);
            continue;
        }
        built += 1;
        let terminal = std::io::stderr().is_terminal();
        if terminal || said.elapsed().as_secs() >= 10 {
            said = Instant::now();
            let text = format!("  {built} of {total} packages, {} s", start.elapsed().as_secs());
            eprint!("{text}{}", if terminal { "\r" } else { "\n" });
            let _ = std::io::stderr().flush();
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "go build ended with {status}:\n{}", errors.join("\n"));
    eprintln!("  built in {} s                              ", start.elapsed().as_secs());
    Ok(())
}
