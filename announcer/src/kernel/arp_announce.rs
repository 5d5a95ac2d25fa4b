//! Owns `arp_announce` of one interface while it is needed, and puts back what was there.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Always the best own address of the interface towards the target (ip-sysctl.rst).
const BEST: u32 = 2;

/// `arp_announce` of an interface, raised to 2. The end of this puts it back.
#[derive(Debug)]
pub struct ArpAnnounce {
    path: PathBuf,
    before: String,
}

impl ArpAnnounce {
    /// Raises the setting of `interface`; nothing if it is as it should be.
    ///
    /// # Errors
    /// When it cannot be written, as in a container whose `/proc/sys` is read-only.
    pub fn set(interface: &str) -> io::Result<Option<Self>> {
        // The kernel uses the larger of the two.
        for name in ["all", interface] {
            if fs::read_to_string(path(name))?.trim().parse().is_ok_and(|value: u32| value >= BEST)
            {
                return Ok(None);
            }
        }
        let path = path(interface);
        let before = fs::read_to_string(&path)?;
        fs::write(&path, BEST.to_string())?;
        Ok(Some(Self { path, before }))
    }
}

impl Drop for ArpAnnounce {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            tracing::debug!(%error, path = %self.path.display(), "not put back");
        }
    }
}

fn path(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv4/conf/{interface}/arp_announce"))
}
