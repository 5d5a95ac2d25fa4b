//! A password of a peer (TCP-MD5, RFC 2385), which nobody should find in a log.

use std::fmt;
use std::path::PathBuf;

/// Octets that Linux takes (`TCP_MD5SIG_MAXKEYLEN`).
pub const LONGEST_PASSWORD: usize = 80;

/// What is accepted as one.
pub(super) const ACCEPTED: &str =
    "accepted is a password of 1 to 80 octets, or [file:/PATH] with one in it";

/// The same where it is encoded.
pub(super) const ACCEPTED_BASE64: &str = "accepted is a password of 1 to 80 octets in base64";

/// A password, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// It is this.
    Text(String),
    /// It is in a file, without the end of its line.
    File(PathBuf),
    /// It is in a Secret beside the ConfigMap.
    Secret {
        /// The Secret's name.
        name: String,
        /// Its key there.
        key: String,
    },
}

impl Password {
    /// A password as settings have it; nothing where it is too long.
    pub(super) fn read(text: &str) -> Option<Self> {
        match text.strip_prefix("file:") {
            Some(path) => path.starts_with('/').then(|| Self::File(path.into())),
            None => Self::text(text),
        }
    }

    /// A password that is this.
    pub(super) fn text(text: &str) -> Option<Self> {
        (1..=LONGEST_PASSWORD).contains(&text.len()).then(|| Self::Text(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Password(..)"),
            Self::File(path) => write!(f, "Password(file {})", path.display()),
            Self::Secret { name, key } => write!(f, "Password(Secret {name}, {key})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_to_nobody() {
        let password = Password::read("hunter2").unwrap();
        assert_eq!(format!("{password:?}"), "Password(..)");
        assert_eq!(
            format!("{:?}", Password::read("file:/run/pw").unwrap()),
            "Password(file /run/pw)"
        );
    }

    #[test]
    fn a_password_is_no_longer_than_the_kernel_takes() {
        assert!(Password::read(&"x".repeat(80)).is_some());
        for wrong in ["", &"x".repeat(81), &"\u{e4}".repeat(41), "file:relative"] {
            assert_eq!(Password::read(wrong), None);
        }
    }
}
