//! Programs from source by the tool directives of a `go.mod`, built once for each state of module files, flags and
//! compiler: a changed version never meets an old program.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::cache;

/// The tools of one `go.mod`.
pub struct GoTools {
    /// The folder of `go.mod`, below `e2e`.
    pub folder: &'static str,
    /// The module whose version names what is built.
    pub module: &'static str,
    /// Those of its tools that are wanted, each as it is to be called and as `go build` calls it.
    pub programs: &'static [(&'static str, &'static str)],
    /// More for the linker, e.g. `-X` with a version.
    pub linker: String,
}

impl GoTools {
    /// The folder of the programs, built if need be. Progress goes to standard error.
    pub fn build(&self) -> Result<PathBuf> {
        cache::folder(
            self.folder,
            &self.key()?,
            |folder| self.is_complete(folder),
            |unfinished| {
                self.compile(unfinished)?;
                for (name, built) in self.programs {
                    if name != built {
                        fs::rename(unfinished.join(built), unfinished.join(name))
                            .with_context(|| format!("{built} is missing"))?;
                    }
                }
                Ok(())
            },
        )
    }

    /// The module's version, as `go.mod` requires it.
    pub fn version(&self) -> Result<String> {
        version(self.folder, self.module)
    }

    /// The folder of the module's source in Go's module cache.
    pub fn source(&self) -> Result<PathBuf> {
        self.go(&["mod", "download", self.module])?;
        let folder = self.go(&["list", "-m", "-f", "{{.Dir}}", self.module])?;
        Ok(folder.trim().into())
    }

    fn is_complete(&self, folder: &Path) -> bool {
        self.programs.iter().all(|(name, _)| folder.join(name).is_file())
    }

    fn flags(&self) -> Vec<String> {
        let linker = format!("-s -w {}", self.linker);
        let linker = linker.trim_end().to_owned();
        // Nobody debugs them, and a compiler that writes nothing for a debugger is done sooner.
        vec!["-trimpath".into(), "-gcflags=all=-dwarf=false".into(), "-ldflags".into(), linker]
    }

    fn key(&self) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        for name in ["go.mod", "go.sum"] {
            fs::read(modules(self.folder).join(name))
                .with_context(|| format!("read {name}"))?
                .hash(&mut hasher);
        }
        self.flags().hash(&mut hasher);
        self.programs.hash(&mut hasher);
        let compiler = self.go(&["env", "GOVERSION", "GOARCH"])?;
        compiler.hash(&mut hasher);
        Ok(format!("{}-{:016x}", self.version()?, hasher.finish()))
    }

    fn go(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .command()
            .args(arguments)
            .output()
            .context("start go: Go 1.21 or later must be in PATH")?;
        ensure!(
            output.status.success(),
            "go {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Without cgo the programs run in any mount namespace. A compiler that is too old for `go.mod` fetches one that
    /// is not, as a module.
    fn command(&self) -> Command {
        let mut command = Command::new("go");
        command
            .current_dir(modules(self.folder))
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "auto");
        // A fifth of a build is the compiler's own collection of garbage, where memory is plenty.
        if env::var_os("GOGC").is_none() {
            command.env("GOGC", "400").env("GOMEMLIMIT", "1500MiB");
        }
        command
    }

    /// The packages of the tools that are wanted.
    fn packages(&self) -> Result<Vec<String>> {
        let tools = self.go(&["list", "-f", "{{.Target}} {{.ImportPath}}", "tool"])?;
        let is_wanted = |target: &str| {
            let name = Path::new(target).file_name().unwrap_or_default();
            self.programs.iter().any(|(_, built)| name == *built)
        };
        let tools = tools.lines().filter_map(|line| line.split_once(' '));
        Ok(tools.filter(|(target, _)| is_wanted(target)).map(|(_, path)| path.into()).collect())
    }

    /// One `go build` of all that is wanted; its `-v` prints a line for each package, which is the progress.
    fn compile(&self, folder: &Path) -> Result<()> {
        let start = Instant::now();
        eprintln!(
            "building {} {} for the lab (once; some minutes on a machine that never did)",
            self.module,
            self.version()?
        );
        eprintln!("  fetching modules");
        self.go(&["mod", "download"])?;
        let packages = self.packages()?;
        let list: Vec<&str> =
            ["list", "-deps"].into_iter().chain(packages.iter().map(String::as_str)).collect();
        let total = self.go(&list)?.lines().count();
        let mut child = self
            .command()
            .args(["build", "-v"])
            .args(self.flags())
            .arg("-o")
            .arg(folder.join(""))
            .args(packages)
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
                let text =
                    format!("  {built} of {total} packages, {} s", start.elapsed().as_secs());
                eprint!("{text}{}", if terminal { "\r" } else { "\n" });
                let _ = std::io::stderr().flush();
            }
        }
        let status = child.wait()?;
        ensure!(status.success(), "go build ended with {status}:\n{}", errors.join("\n"));
        eprintln!("  built in {} s                              ", start.elapsed().as_secs());
        Ok(())
    }
}

/// The version of `module` that `go.mod` in `folder` requires.
pub fn version(folder: &str, module: &str) -> Result<String> {
    let file = modules(folder).join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let mut lines = text.lines().map(|line| line.trim().trim_start_matches("require "));
    let required = lines.find_map(|line| line.strip_prefix(module)?.strip_prefix(' '));
    let required = required.with_context(|| format!("go.mod requires no {module}"))?;
    Ok(required.split_whitespace().next().unwrap_or("").to_owned())
}

/// Folders of module files lie in `e2e`.
fn modules(folder: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(folder)
}
