//! What Kubernetes takes as a name: where a file names what can be nobody's, it would never fit, and nobody would know why.

/// What is accepted as the key of a label.
pub(super) const LABEL_KEY: &str = "accepted is the key of a label: 1 to 63 letters, digits, '-', '_', '.', with or without a domain and '/' before it";

/// What is accepted as its value.
pub(super) const LABEL_VALUE: &str = "accepted is the value of a label: up to 63 letters, digits, '-', '_', '.', with a letter or digit at either end";

/// What is accepted as a Secret.
pub(super) const SECRET: &str =
    "accepted is the name of a Secret: small letters, digits, '-', '.', 253 characters at most";

/// What is accepted as a key in it.
pub(super) const KEY: &str =
    "accepted is a key of a Secret: letters, digits, '-', '_', '.', 253 characters at most";

/// A label as DNS has it (RFC 1123 §2.1), as of a namespace.
pub(super) fn is_namespace(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..64).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name as DNS has it, as of most objects.
pub(super) fn is_object(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() < 254 && text.split('.').all(is_label)
}

/// A key of a Secret or ConfigMap.
pub(super) fn is_key(text: &str) -> bool {
    (1..254).contains(&text.len()) && text.chars().all(is_plain) && text != "." && text != ".."
}

/// The key of a label, with its domain.
pub(super) fn is_label_key(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(of, name)| (Some(of), name));
    domain.is_none_or(is_object) && !name.is_empty() && is_label_value(name)
}

/// The value of a label, which may be empty.
pub(super) fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let (first, last) = (text.chars().next(), text.chars().next_back());
    text.len() < 64 && text.chars().all(is_plain) && is_end(first) && is_end(last)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}
