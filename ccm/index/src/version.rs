//! Owns the order of versions.

/// Versions of one resource are numbers that grow (KEP-5504); should one not be, a different one counts as newer.
pub(super) fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}
