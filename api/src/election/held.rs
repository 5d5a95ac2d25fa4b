//! Who holds a Lease, as far as somebody who is no candidate for it has to know.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

/// The longest identity that is told apart: as long as the name of a node may be. The API takes any.
const LONGEST: usize = 253;

/// Who holds a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Somebody.
    By {
        /// `spec.holderIdentity`, at most 253 characters of it.
        identity: String,
        /// `metadata.resourceVersion`: each renewal has another.
        version: Option<String>,
        /// `spec.leaseDurationSeconds`: from a renewal on it is held for so long.
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
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self::By {
            identity: identity.chars().take(LONGEST).collect(),
            version: version(lease).map(str::to_owned),
            duration: seconds.map(Duration::from_secs),
        }
    }
}

/// Which state of the Lease it is.
pub(super) fn version(lease: &Lease) -> Option<&str> {
    lease.metadata.resource_version.as_deref()
}

/// Nobody is written as an empty name by client-go, and left out by us.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}
