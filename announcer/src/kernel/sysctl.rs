//! Settings of the kernel below `/proc/sys`.

use std::fs;
use std::io;

/// The value of a setting; nothing if this kernel has none of this name.
pub fn read(name: &str) -> Option<String> {
    fs::read_to_string(path(name)).ok()
}

/// The value of a setting that must be there.
pub(super) fn value(name: &str) -> io::Result<String> {
    fs::read_to_string(path(name))
}

/// Changes a setting.
pub(super) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

fn path(name: &str) -> String {
    format!("/proc/sys/{name}")
}
