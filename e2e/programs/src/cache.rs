//! A cache outside the source tree, which outlives labs and builds: folders that are made once, whoever asks first.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The folder `berth/<kind>/<key>` below `XDG_CACHE_HOME` or `~/.cache`, filled by `make` if it is not complete. It is
/// never to be seen half made, also when two ask at once or the making is interrupted.
pub fn folder(
    kind: &str,
    key: &str,
    is_complete: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = root()?.join(kind);
    let folder = cache.join(key);
    if is_complete(&folder) {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = fs::File::create(cache.join("lock"))?;
    // The second who asks waits here, then finds the folder complete.
    lock.lock().context("lock the cache")?;
    if is_complete(&folder) {
        return Ok(folder);
    }
    let unfinished = cache.join("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    make(&unfinished)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&unfinished, &folder)?;
    ensure!(is_complete(&folder), "{} is incomplete", folder.display());
    Ok(folder)
}

fn root() -> Result<PathBuf> {
    let base = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".cache"),
        _ => PathBuf::from("/var/cache"),
    };
    ensure!(base.is_absolute(), "XDG_CACHE_HOME={}: an absolute path is accepted", base.display());
    Ok(base.join("berth"))
}
