//! The images of this workspace: which programs are in each, and as whom they run.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Image, Layer};

/// The user of programs that need no privilege: nobody's, as in distroless images.
const NONROOT: u32 = 65532;

/// The programs of the host that the announcer runs. Those of iptables are one program for each implementation, which
/// goes by its name.
const ANNOUNCER_TOOLS: [&str; 10] = [
    "nft",
    "ipset",
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];

/// The image kubelet's sandboxes run, as containerd's `sandbox_image` names it.
pub fn pause_reference() -> String {
    Image::new("pause", &[]).reference()
}

type Recipe = fn(&Path) -> Result<Image>;

/// Each program of this workspace that has an image of its name, and how it is made.
const RECIPES: [(&str, Recipe); 3] =
    [("echo", echo), ("berth-ccm", ccm), ("berth-announcer", announcer)];

/// Packs every image out of the programs in `programs` (Cargo's target folder) into `folder`, and gives the archives.
pub fn write_all(programs: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    write(programs, folder, |_| true)
}

/// Like [`write_all`], but leaves out the programs that are not built.
pub fn write_built(programs: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    write(programs, folder, |name| programs.join(name).is_file())
}

fn write(programs: &Path, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let recipes = RECIPES.iter().filter(|(name, _)| wanted(name)).map(|(_, recipe)| *recipe);
    let images: Vec<Recipe> = [(|_| pause()) as Recipe].into_iter().chain(recipes).collect();
    thread::scope(|scope| {
        let running: Vec<_> = images
            .into_iter()
            .map(|image| scope.spawn(move || image(programs)?.write(folder)))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| bail!("a thread panicked while packing images"))
            })
            .collect()
    })
}

/// Manifests of kube-vip's cloud provider name its program, which is the entrypoint of its image: so does a link here.
fn ccm(programs: &Path) -> Result<Image> {
    let image = program(programs, "berth-ccm", &[])?.user(NONROOT);
    Ok(image.layer(Layer::new().link("/kube-vip-cloud-provider", "/usr/bin/berth-ccm")))
}

/// The same of kube-vip.
fn announcer(programs: &Path) -> Result<Image> {
    let image = program(programs, "berth-announcer", &ANNOUNCER_TOOLS)?;
    let image = image.layer(matches_of_iptables()?);
    Ok(image.layer(Layer::new().link("/kube-vip", "/usr/bin/berth-announcer")))
}

/// What iptables loads for each match and target, also for those in rules of others that it shows. Some need a library
/// that iptables itself does not: `statistic`, which kube-proxy uses, that of mathematics.
pub(super) fn matches_of_iptables() -> Result<Layer> {
    let folder = format!("/usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
    let entries = fs::read_dir(&folder).with_context(|| {
        format!("{folder}: the announcer's image carries it (Debian: iptables)")
    })?;
    let mut matches = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    matches.retain(|path| path.extension() == Some(OsStr::new("so")));
    let matches: Vec<&Path> = matches.iter().map(PathBuf::as_path).collect();
    let libraries = Layer::new().libraries_of_all(&matches)?;
    matches.iter().try_fold(libraries, |layer, path| layer.copy(&path.display().to_string(), path))
}

fn echo(programs: &Path) -> Result<Image> {
    Ok(program(programs, "echo", &[])?.user(NONROOT))
}

/// One program on top of its libraries and tools: the lower layer stays the same from build to build.
fn program(programs: &Path, name: &str, tools: &[&str]) -> Result<Image> {
    let binary = programs.join(name);
    ensure!(binary.is_file(), "{} is missing: build it with cargo build first", binary.display());
    let mut base = Layer::new()
        .file(
            "/etc/passwd",
            0o644,
            format!("root:x:0:0::/:/\nnonroot:x:{NONROOT}:{NONROOT}::/:/\n"),
        )
        .file("/etc/group", 0o644, format!("root:x:0:\nnonroot:x:{NONROOT}:\n"))
        .libraries_of(&binary)?;
    for tool in tools {
        let path = find(tool)?;
        base = base.libraries_of(&path)?.copy(&format!("/usr/sbin/{tool}"), &path)?;
    }
    let path = format!("/usr/bin/{name}");
    let top = Layer::new().file(&path, 0o755, stripped(&binary)?);
    Ok(Image::new(name, &[&path]).layer(base).layer(top))
}

/// The first process of every pod, from its source.
pub(super) fn pause() -> Result<Image> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/pause/pause.c");
    let bytes = through_file("pause", |out| {
        let arguments: [&OsStr; 5] =
            ["-static".as_ref(), "-Os".as_ref(), "-s".as_ref(), "-o".as_ref(), out.as_ref()];
        run(Command::new("cc").args(arguments).arg(&source))
    })?;
    Ok(Image::new("pause", &["/pause"])
        .user(NONROOT)
        .layer(Layer::new().file("/pause", 0o755, bytes)))
}

/// A program without what only a debugger reads, which in a debug build is most of it.
pub(crate) fn stripped(binary: &Path) -> Result<Vec<u8>> {
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    through_file(&name, |out| run(Command::new("strip").arg("-o").arg(out).arg(binary)))
}

/// What `make` wrote to the file it was given.
fn through_file(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<Vec<u8>> {
    let file = std::env::temp_dir().join(format!("berth-image-{name}-{}", std::process::id()));
    let result = make(&file)
        .and_then(|()| fs::read(&file).with_context(|| format!("read {}", file.display())));
    let _ = fs::remove_file(&file);
    result
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A program of the host, also where root's PATH lacks the system folders.
pub(super) fn find(tool: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(tool)).find(|path| path.is_file()).with_context(|| {
        format!(
            "{tool} is not on this machine; an image carries it (Debian: nftables, iptables, ipset, conntrack)"
        )
    })
}
