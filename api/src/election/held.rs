//! Who holds a Lease, as far as somebody who is no candidate for it has to know.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

/// The longest identity that is told apart: as long as the name of a node may be. The API takes any.
const LONGEST: usize = 253;

/// The longest duration that is believed, as long as our settings may be: by one write with another one (`2147483647`) nobody would have
/// what the Lease decides on for 68 years, long after whoever wrote it may write no more.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Who holds a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Somebody.
    By {
        /// `spec.holderIdentity`, at most 253 characters of it.
        identity: String,
        /// `metadata.resourceVersion`: each renewal has another.
        version: Option<String>,
        /// `spec.leaseDurationSeconds`: from a renewal on it is held for so long, an hour at most.
        duration: Option<Duration>,
    },
    /// Nobody: it was given back.
    Nobody,
    /// There is no such Lease, which does not stop who held it.
    Gone,
}

impl Held {
    /// Who holds a Lease that is like this.
    pub fn of(lease: &Lease) -> Self {
        let Some(identity) = holder(lease) else { return Self::Nobody };
        Self::By {
            identity: identity.chars().take(LONGEST).collect(),
            version: version(lease).map(str::to_owned),
            duration: duration(lease),
        }
    }
}

/// For how long it is held from a renewal on, as far as that is believed.
pub(super) fn duration(lease: &Lease) -> Option<Duration> {
    let seconds = u64::try_from(lease.spec.as_ref()?.lease_duration_seconds?).ok()?;
    Some(Duration::from_secs(seconds).min(BELIEVED))
}

/// Which state of the Lease it is.
pub(super) fn version(lease: &Lease) -> Option<&str> {
    lease.metadata.resource_version.as_deref()
}

/// Nobody is written as an empty name by client-go, and left out by us.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}
