//! Which files a program needs before its first instruction: asked of the machine's own loader, through `ldd`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The shared libraries and the loader of all `programs`; none for a static one.
pub(super) fn of(programs: &[&Path]) -> Result<Vec<PathBuf>> {
    let output =
        Command::new("ldd").args(programs).env("LC_ALL", "C").output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        if message.contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("ldd {programs:?}: {}{}", text.trim(), message.trim());
    }
    parse(&text).with_context(|| format!("libraries of {programs:?}"))
}

/// Reads ldd's lines: `name => path (address)`, `path (address)`, and the kernel's own object, which is no file. Of several
/// programs each has its name and a colon above its own.
fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.ends_with(':')) {
        let file = match line.split_once(" => ") {
            Some((name, "not found")) => bail!("{name} is not on this machine"),
            Some((_, file)) => file,
            None => line,
        };
        let file = file.split(" (").next().unwrap_or_default();
        if file.starts_with('/') {
            found.push(file.into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found_and_the_kernels_object_is_not() {
        let text = "/usr/sbin/nft:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse(text).unwrap();
        assert_eq!(
            found,
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert_eq!(parse("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibfoo.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libfoo.so.1"), "{error}");
    }
}
