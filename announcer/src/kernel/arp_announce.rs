//! Owns `arp_announce` of one interface while it is needed, and puts back what was there.

use std::io;

use super::sysctl;

/// Always the best own address of the interface towards the target (ip-sysctl.rst).
const BEST: u32 = 2;

/// `arp_announce` of an interface, raised to 2. The end of this puts it back.
#[derive(Debug)]
pub struct ArpAnnounce {
    name: String,
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
            let value = sysctl::value(&setting(name))?;
            if value.trim().parse().is_ok_and(|value: u32| value >= BEST) {
                return Ok(None);
            }
        }
        let name = setting(interface);
        let before = sysctl::value(&name)?;
        sysctl::write(&name, &BEST.to_string())?;
        Ok(Some(Self { name, before }))
    }
}

impl Drop for ArpAnnounce {
    fn drop(&mut self) {
        if let Err(error) = sysctl::write(&self.name, &self.before) {
            tracing::debug!(%error, name = self.name, "not put back");
        }
    }
}

fn setting(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/arp_announce")
}
