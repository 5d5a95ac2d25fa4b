//! How much is read of what users write into objects. The API server lets a quarter of a megabyte into the annotations of
//! one; what is over a limit here is refused with a word, and never kept.

/// The most addresses of one Service: one of each family (`spec.ipFamilies`).
pub const MOST_ADDRESSES: usize = 2;

/// The most octets of a list of addresses: both families of a Service, and ten times more.
pub const LONGEST_LIST: usize = 1024;

/// The most nodes or labels that a Service prefers.
pub const MOST_PREFERENCES: usize = 16;

/// The most labels of a Service by which rules of BGP go.
pub const MOST_LABELS: usize = 32;

/// The most ports of a Service that anything but kube-proxy looks at.
pub const MOST_PORTS: usize = 1024;

/// The most ports, at each address of it one, that are guarded for the Services of one namespace, and of all: each costs an
/// announcer a kilobyte or more, and the kernel an element, on every node.
pub const MOST_GUARDED: usize = 32_768;
/// See [`MOST_GUARDED`].
pub const MOST_GUARDED_TOGETHER: usize = 98_304;

/// The most entries that are read of what a status says of addresses: more than Berth ever writes.
pub const MOST_SHOWN: usize = 16;

/// The longest name of an object (RFC 1123 §2.1, k8s.io/apimachinery/pkg/util/validation).
const LONGEST_NAME: usize = 253;

/// The longest part of a label (k8s.io/apimachinery/pkg/util/validation).
const LONGEST_LABEL: usize = 63;

/// What Linux takes as the name of an interface (`dev_valid_name` in net/core/dev.c).
pub fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 16
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// Whether an object may have this name, as a Lease does (`IsDNS1123Subdomain`).
pub fn is_object_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.split('.').all(is_part)
}

/// Whether a namespace may have this name (`IsDNS1123Label`).
pub fn is_namespace(name: &str) -> bool {
    name.len() <= LONGEST_LABEL && is_part(name)
}

fn is_part(part: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let ends_in_hyphen = part.starts_with('-') || part.ends_with('-');
    !part.is_empty() && part.bytes().all(plain) && !ends_in_hyphen
}

/// Whether it looks like the name of a node.
pub fn is_node_name(name: &str) -> bool {
    is_word(name, "-.", LONGEST_NAME)
}

/// Whether it looks like the key of a label, with or without a prefix.
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("any", key));
    is_word(prefix, "-.", LONGEST_NAME) && is_word(name, "-._", LONGEST_LABEL)
}

/// Whether it looks like the value of a label.
pub fn is_label_value(value: &str) -> bool {
    is_word(value, "-._", LONGEST_LABEL)
}

fn is_word(word: &str, more: &str, longest: usize) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    (1..=longest).contains(&word.len()) && word.chars().all(fits)
}

/// The beginning of a text that nobody needs whole: at most as long as the longest name.
pub fn name_of(text: &str) -> &str {
    let mut ends = (0..=text.len().min(LONGEST_NAME)).rev();
    &text[..ends.find(|end| text.is_char_boundary(*end)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_linux_and_the_api_server_take() {
        assert!(is_interface_name("eth0.100") && is_interface_name(&"a".repeat(15)));
        for name in ["", ".", "..", "a/b", "a:b", "a b", &"a".repeat(16)] {
            assert!(!is_interface_name(name), "{name}");
        }
        assert!(is_object_name("kubevip-web") && is_object_name("a.b-c") && is_object_name("7"));
        for name in ["", "-a", "a-", "a..b", "A", "a/b", "a_b", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name}");
        }
        assert_eq!(name_of(&"ä".repeat(200)).len(), 252);
    }
}
