//! Which network of which boot this is.

use std::os::unix::fs::MetadataExt;
use std::{fs, io};

/// The kernel's `boot_id` and the number of this network namespace, of which there is one at a time (`namespaces(7)`).
///
/// # Errors
/// When `/proc` does not tell.
pub fn network_id() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(format!("{}/{namespace}", boot.trim_end()))
}
