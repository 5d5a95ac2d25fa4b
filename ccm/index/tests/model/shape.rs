//! A fingerprint of what is shown by `Debug`, in which of versions only the order counts.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The hash of a text without the versions, and the versions in their places.
pub(crate) type Parts = (u64, Vec<u64>);

/// What is shown between quotation marks is a version, or a uid that was made of one, or plain text. It is shown into one
/// text and hashed at once: both are done by code of the standard library that is optimized, and there are hundreds of
/// thousands of states.
pub(crate) fn of(shown: &impl Debug) -> Parts {
    let mut text = String::with_capacity(16 << 10);
    write!(text, "{shown:?}").expect("a text takes all that is shown");
    let mut plain = String::with_capacity(text.len());
    let mut versions = Vec::new();
    for part in text.split('"') {
        let prefix = ["uid-", "claim-"].into_iter().find(|prefix| part.starts_with(prefix));
        let prefix = prefix.unwrap_or_default();
        match part[prefix.len()..].parse() {
            Ok(version) => {
                versions.push(version);
                plain.push_str(prefix);
            }
            Err(_) => plain.push_str(part),
        }
        plain.push('"');
    }
    let mut hasher = DefaultHasher::new();
    plain.hash(&mut hasher);
    (hasher.finish(), versions)
}

/// One number for several shapes: their texts, and the ranks of all their versions.
pub(crate) fn fingerprint<'a>(shapes: impl Iterator<Item = &'a Parts> + Clone) -> u64 {
    let versions: BTreeSet<u64> = shapes.clone().flat_map(|parts| &parts.1).copied().collect();
    let versions: Vec<u64> = versions.into_iter().collect();
    let mut hasher = DefaultHasher::new();
    for (text, shown) in shapes {
        text.hash(&mut hasher);
        for version in shown {
            versions.binary_search(version).hash(&mut hasher);
        }
    }
    hasher.finish()
}
