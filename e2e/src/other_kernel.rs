//! A program under another kernel than the machine's own, for what this one was built without: Debian's cloud kernel
//! and an initramfs, in QEMU without KVM. Nothing is installed, and nothing is left: the guest has no disk and no
//! network, its initramfs no file, and QEMU dies with the thread that started it.
//!
//! ```no_run
//! # fn example() -> anyhow::Result<()> {
//! use std::{path::Path, time::Duration};
//!
//! use berth_e2e::other_kernel::Guest;
//!
//! let ip = Guest::new(Path::new("/usr/sbin/ip"), &["-d", "link"]).modules(&["wireguard"]);
//! let outcome = ip.run(Duration::from_secs(60))?;
//! println!("{}: {}", outcome.status, outcome.console.join("\n"));
//! # Ok(())
//! # }
//! ```

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Cursor, Seek},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cpio::NewcBuilder;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{
    image::{Layer, berth::stripped},
    packages::{Packages, dependency},
};

mod modules;

/// The kernel with its modules, and the tools that the guest's first process needs.
const PACKAGES: Packages = Packages {
    kind: "other-kernel",
    names: || Ok(vec![dependency("linux-image-cloud-amd64")?, "busybox-static".to_owned()]),
    needed: &["boot", "lib/modules", "bin/busybox"],
};

/// Before the status, on the console.
const MARKER: &str = "other-kernel: exit status ";

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to be run, and what it finds there.
#[derive(Clone, Debug)]
pub struct Guest {
    program: PathBuf,
    arguments: Vec<String>,
    modules: Vec<String>,
    tools: Vec<String>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The program's exit status, as a shell has it: 128 and the signal's number if a signal ended it.
    pub status: i32,
    /// What the kernel and the program wrote, line by line.
    pub console: Vec<String>,
}

impl Guest {
    /// A program of this machine, which takes its shared libraries along.
    pub fn new(program: &Path, arguments: &[&str]) -> Self {
        Self {
            program: program.into(),
            arguments: owned(arguments),
            modules: vec![],
            tools: vec![],
        }
    }

    /// Loads these modules of the kernel, and before each what it depends on. No others are there.
    pub fn modules(self, names: &[&str]) -> Self {
        Self { modules: owned(names), ..self }
    }

    /// Takes these programs of this machine along, by their name.
    pub fn tools(self, names: &[&str]) -> Self {
        Self { tools: owned(names), ..self }
    }

    /// Boots, runs the program to its end and gives how it ended. What the console shows goes to standard error as well.
    /// A guest that takes longer than `limit`, or ends without a status, is an error with the console's last lines.
    pub fn run(&self, limit: Duration) -> Result<Outcome> {
        ensure!(std::env::consts::ARCH == "x86_64", "there is a guest for x86_64 only");
        let packages = PACKAGES.fetch()?;
        let initramfs = pack(&self.files(&packages)?)?;
        let mut qemu = Qemu::boot(&kernel(&packages)?, initramfs)?;
        let console = qemu.console(limit);
        let tail = || console.lines[console.lines.len().saturating_sub(40)..].join("\n");
        ensure!(console.ended, "the guest has not ended after {limit:?}:\n{}", tail());
        let status = console.lines.iter().rev().find_map(|line| line.strip_prefix(MARKER));
        let status = status.with_context(|| format!("the guest gave no status:\n{}", tail()))?;
        let status = status.parse().with_context(|| format!("the guest ended with: {status}"))?;
        Ok(Outcome { status, console: console.lines })
    }

    fn files(&self, packages: &Path) -> Result<Layer> {
        let name = self.program.file_name().and_then(|n| n.to_str()).context("no program")?;
        let program = format!("/program/{name}");
        let mut layer = Layer::new()
            .copy("/bin/busybox", &packages.join("bin/busybox"))?
            // tcpdump drops to a user that it looks up.
            .copy("/etc/passwd", Path::new("/etc/passwd"))?
            .copy("/etc/group", Path::new("/etc/group"))?
            .file(&program, 0o755, stripped(&self.program)?)
            .libraries_of(&self.program)?;
        for tool in &self.tools {
            let path = find(tool)?;
            layer = layer.libraries_of(&path)?.copy(&format!("/usr/sbin/{tool}"), &path)?;
        }
        let mut loads = String::new();
        for (name, file) in modules::in_order(&packages.join("lib/modules"), &self.modules)? {
            let path = format!("/modules/{name}.ko");
            layer = layer.copy(&path, &file)?;
            loads += &format!("$busybox insmod {path} || end 'no module {name}'\n");
        }
        let words: Vec<_> = [program].iter().chain(&self.arguments).map(|w| quoted(w)).collect();
        Ok(layer.file("/init", 0o755, init(&loads, &words.join(" "))))
    }
}

/// The guest's first process.
fn init(loads: &str, command: &str) -> String {
    format!(
        "#!/bin/busybox sh
busybox=/bin/busybox
export PATH={PATH}
end() {{
	# The program's last line may lack its end.
	echo; echo \"{MARKER}$1\"
	exec $busybox reboot -f
}}
$busybox mkdir -p /proc /sys /dev /tmp /run
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t tmpfs tmpfs /tmp
{loads}{command}
end $?
"
    )
}

/// A word that a shell reads as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The initramfs, in memory.
fn pack(layer: &Layer) -> Result<File> {
    let mut folders: Vec<&Path> = layer.files().flat_map(|f| f.0.ancestors().skip(1)).collect();
    // Sorted, each comes after the one it lies in.
    folders.sort();
    folders.dedup();
    let folders = folders.into_iter().map(|path| (path, 0o040_755, &[][..]));
    let files = layer.files().map(|(path, mode, bytes)| (path, 0o100_000 | mode, bytes));
    let entries = folders.chain(files).filter(|(path, ..)| path.parent().is_some());
    let entries = entries.map(|(path, mode, bytes)| {
        let name = path.display().to_string();
        (NewcBuilder::new(name.trim_start_matches('/')).mode(mode), Cursor::new(bytes))
    });
    let mut file = File::from(memfd_create("initramfs", MFdFlags::MFD_CLOEXEC)?);
    cpio::write_cpio(entries, &mut file).context("pack the initramfs")?;
    file.rewind()?;
    Ok(file)
}

/// A guest that is gone when this is.
struct Qemu(Child);

struct Console {
    lines: Vec<String>,
    /// Whether the guest has ended in time.
    ended: bool,
}

impl Qemu {
    fn boot(kernel: &Path, initramfs: File) -> Result<Self> {
        // TCG: where the machine is a virtual one, its KVM may be there and hang.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-m", "512"])
            .args(["-no-reboot", "-display", "none", "-monitor", "none", "-nic", "none"])
            .args(["-serial", "file:/dev/stdout", "-initrd", "/dev/stdin", "-kernel"])
            .arg(kernel)
            .args(["-append", "console=ttyS0 quiet panic=-1"])
            .stdin(initramfs)
            .stdout(Stdio::piped())
            .spawn()
            .context("start qemu-system-x86_64 by setpriv")?;
        Ok(Self(child))
    }

    /// Reads the console until the guest ends, but not for longer than `limit`.
    fn console(&mut self, limit: Duration) -> Console {
        let end = Instant::now() + limit;
        let (tell, told) = mpsc::channel();
        if let Some(output) = self.0.stdout.take() {
            thread::spawn(move || read(output, &tell));
        }
        let mut lines = Vec::new();
        loop {
            match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    eprintln!("guest: {line}");
                    lines.push(line);
                }
                Err(error) => {
                    return Console { lines, ended: error == mpsc::RecvTimeoutError::Disconnected };
                }
            }
        }
    }
}

fn read(output: ChildStdout, tell: &mpsc::Sender<String>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if tell.send(line).is_err() {
            return;
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kernel(packages: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(packages.join("boot"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
            return Ok(entry.path());
        }
    }
    bail!("no kernel in {}", packages.display())
}

fn find(tool: &str) -> Result<PathBuf> {
    let folders = PATH.split(':').map(Path::new);
    let mut found = folders.map(|folder| folder.join(tool)).filter(|path| path.is_file());
    found.next().with_context(|| format!("no {tool} in {PATH}"))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
