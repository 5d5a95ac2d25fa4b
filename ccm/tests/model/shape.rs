//! A fingerprint of what is shown by `Debug`, in which of versions only the order counts.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The hash of a text without the versions, and the versions in their places.
pub(crate) type Parts = (u64, Vec<u64>);

/// What is shown between quotation marks is a version, or a uid that was made of one, or plain text. The text is hashed
/// as it comes, for it is long and there are hundreds of thousands of states.
#[derive(Default)]
pub(crate) struct Shape {
    text: DefaultHasher,
    part: String,
    versions: Vec<u64>,
}

impl Shape {
    pub(crate) fn of(shown: &impl Debug) -> Self {
        let mut shape = Self::default();
        write!(shape, "{shown:?}").expect("hashing text does not fail");
        shape.end_part();
        shape
    }

    pub(crate) fn parts(self) -> Parts {
        (self.text.finish(), self.versions)
    }

    fn end_part(&mut self) {
        let part = self.part.as_str();
        let prefix = ["uid-", "claim-"].into_iter().find(|prefix| part.starts_with(prefix));
        let prefix = prefix.unwrap_or_default();
        match part[prefix.len()..].parse() {
            Ok(version) => {
                self.versions.push(version);
                prefix.hash(&mut self.text);
            }
            Err(_) => part.hash(&mut self.text),
        }
        self.part.clear();
    }
}

impl Write for Shape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Most pieces are a few bytes long, for which a plain loop is quicker than a search.
        while let Some(end) = rest.bytes().position(|byte| byte == b'"') {
            self.part.push_str(&rest[..end]);
            self.end_part();
            rest = &rest[end + 1..];
        }
        self.part.push_str(rest);
        Ok(())
    }
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
