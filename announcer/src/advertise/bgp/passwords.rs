//! Passwords of peers, read where they are before each attempt to connect: whoever exchanges one need tell nobody.

use std::sync::Arc;

use berth_bgp::config::Password;
use berth_bgp_speaker::Key;
use futures::future::BoxFuture;

/// Reads a key of a Secret, by the Secret's name and its own; the error is for people, and has nothing of it.
pub type Secrets =
    Arc<dyn Fn(&str, &str) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

const ACCEPTED: &str = "accepted is a password of 1 to 80 octets";

/// What connections with a peer that has this password are signed with.
pub(super) async fn key(password: &Password, secrets: &Secrets) -> Result<Key, String> {
    let (octets, place) = match password {
        Password::Text(text) => {
            return Key::new(text.as_bytes()).ok_or_else(|| ACCEPTED.to_owned());
        }
        Password::File(path) => {
            let read = tokio::fs::read(path).await;
            let told = |error| format!("reading the password in {}: {error}", path.display());
            (read.map_err(told)?, path.display().to_string())
        }
        Password::Secret { name, key } => {
            (secrets(name, key).await?, format!("Secret {name}, key {key}"))
        }
    };
    // As an editor leaves it.
    let text = octets.strip_suffix(b"\n").unwrap_or(&octets);
    Key::new(text).ok_or_else(|| format!("{place}: {ACCEPTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One Secret with one key.
    fn secrets(octets: &'static [u8]) -> Secrets {
        Arc::new(move |name, key| {
            let read = match (name, key) {
                ("tor", "password") => Ok(octets.to_vec()),
                _ => Err(format!("there is no Secret kube-system/{name}")),
            };
            Box::pin(std::future::ready(read))
        })
    }

    #[tokio::test]
    async fn a_password_is_read_anew_wherever_it_is_and_what_is_wrong_shows_nothing_of_it() {
        let of =
            |name: &str| Password::Secret { name: name.to_owned(), key: "password".to_owned() };
        assert_eq!(key(&of("tor"), &secrets(b"one\n")).await.ok(), Key::new(b"one"));
        assert_eq!(key(&of("tor"), &secrets(b"two")).await.ok(), Key::new(b"two"));
        let absent = key(&of("core"), &secrets(b"")).await.unwrap_err();
        assert_eq!(absent, "there is no Secret kube-system/core");
        const LONG: &[u8] = &[b'x'; 81];
        let long = key(&of("tor"), &secrets(LONG)).await.unwrap_err();
        assert_eq!(long, "Secret tor, key password: accepted is a password of 1 to 80 octets");

        let path = std::env::temp_dir().join(format!("berth-password-{}", std::process::id()));
        let file = Password::File(path.clone());
        assert!(
            key(&file, &secrets(b"")).await.unwrap_err().starts_with("reading the password in")
        );
        for text in ["one", "two\n"] {
            std::fs::write(&path, text).unwrap();
            let read = key(&file, &secrets(b"")).await.ok();
            assert_eq!(read, Key::new(text.trim_end().as_bytes()));
        }
        std::fs::remove_file(path).unwrap();
    }
}
