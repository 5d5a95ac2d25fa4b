//! Owns the keys that authenticate messages. A datagram that none of them signed, or that is for another node, is
//! refused before anything in it but its version is looked at.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::decode::{Opened, decode};
use crate::envelope::{TAG, VERSION_AT};
use crate::message::Message;
use crate::name::NodeId;
use crate::wire::{DatagramError, Tongue, Version, encode};

/// What SHA-256 takes in at a time (RFC 6234).
const BLOCK: usize = 64;

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A short key can be guessed.
    #[error("key of {0} octets: must be at least 16")]
    Short(usize),
    /// Nothing to sign with.
    #[error("no key: must be at least one")]
    Missing,
}

/// The cluster's keys for HMAC-SHA256 (RFC 2104): the first signs, any of them verifies, so that a key is changed by
/// adding the new one last everywhere, then moving it first, then removing the old one.
///
/// Version 1 of the wire signs the octets. From version 2 on the incarnation of the cluster is signed with them, so that nothing
/// is authentic that was made in another one with the same key.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Keyed>,
    /// The newest version that is known.
    newest: Version,
}

#[derive(Clone)]
struct Keyed {
    first: Hmac<Sha256>,
    /// With the incarnation taken in already; none where only version 1 is known.
    second: Option<Hmac<Sha256>>,
}

impl Keyed {
    fn new(incarnation: &str, key: &[u8]) -> Result<Self, KeyError> {
        let first = keyed(key)?;
        let mut second = first.clone();
        second.update(&prefix(incarnation));
        Ok(Self { first, second: Some(second) })
    }

    fn mac(&self, version: Version) -> Option<&Hmac<Sha256>> {
        match version {
            Version::First => Some(&self.first),
            Version::Second | Version::Third => self.second.as_ref(),
        }
    }
}

impl Keyring {
    /// The keys in order, and the incarnation of the cluster that they are for: whatever is never the same in two of them;
    /// empty if there is no such thing.
    ///
    /// # Errors
    /// If there is none or one is shorter than 16 octets.
    pub fn new<'a>(
        incarnation: &str,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, KeyError> {
        let keys: Result<Vec<_>, _> =
            keys.into_iter().map(|key| Keyed::new(incarnation, key)).collect();
        match keys? {
            keys if keys.is_empty() => Err(KeyError::Missing),
            keys => Ok(Self { keys, newest: Version::Third }),
        }
    }

    /// The keys as a node has them that knows version 1 only.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "simulation")]
    pub fn former<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, KeyError> {
        let mut ring = Self::new("", keys)?;
        ring.keys.iter_mut().for_each(|key| key.second = None);
        ring.newest = Version::First;
        Ok(ring)
    }

    /// The keys as a node has them that knows versions 1 and 2 only.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn without_third(self) -> Self {
        Self { newest: Version::Second, ..self }
    }

    /// The newest version that is known.
    pub(crate) fn newest(&self) -> Version {
        self.newest
    }

    /// The datagram that carries a message.
    pub(crate) fn seal(
        &self,
        version: Version,
        from: NodeId,
        to: NodeId,
        message: &Message,
    ) -> Vec<u8> {
        let tongue = Tongue { version, reads: self.newest };
        let mut octets = encode(tongue, from, to, message);
        let mut mac = self.keys[0].mac(version).unwrap_or(&self.keys[0].first).clone();
        mac.update(&octets);
        octets.extend(mac.finalize().into_bytes());
        octets
    }

    /// What a datagram for `me` says.
    pub(crate) fn open(&self, me: NodeId, datagram: &[u8]) -> Result<Opened, DatagramError> {
        let (octets, tag) = datagram.split_last_chunk::<TAG>().ok_or(DatagramError::Truncated)?;
        let version = Version::of(octets);
        let signed = |key: &Keyed| {
            let mac = key.mac(version).map(|mac| mac.clone().chain_update(octets));
            mac.is_some_and(|mac| mac.verify_slice(tag).is_ok())
        };
        if !self.keys.iter().any(signed) {
            return Err(DatagramError::Forged);
        }
        if version > self.newest {
            return Err(DatagramError::Version(octets[VERSION_AT]));
        }
        let mut opened = decode(octets)?;
        // Who knows no version 3 does not see who does.
        opened.tongue.reads = opened.tongue.reads.min(self.newest);
        if opened.to == me { Ok(opened) } else { Err(DatagramError::Misdirected(opened.to)) }
    }
}

/// What is signed before the octets in version 2: the incarnation, its length in front. It begins with a zero where octets
/// of version 1 begin with `"BM"`, so that neither version can be taken for the other. It fills whole blocks of SHA-256, so
/// that no datagram costs more for it.
fn prefix(incarnation: &str) -> Vec<u8> {
    let mut octets = (incarnation.len() as u64).to_be_bytes().to_vec();
    octets.extend(incarnation.as_bytes());
    octets.resize(octets.len().next_multiple_of(BLOCK), 0);
    octets
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, KeyError> {
    let short = KeyError::Short(key.len());
    if key.len() < 16 { Err(short) } else { Hmac::new_from_slice(key).map_err(|_| short) }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Hand, Step};

    const FROM: NodeId = NodeId::from_bits(1);
    const TO: NodeId = NodeId::from_bits(2);
    const ALL: [Version; 3] = [Version::First, Version::Second, Version::Third];

    fn ring(incarnation: &str, keys: &[&str]) -> Keyring {
        Keyring::new(incarnation, keys.iter().map(|key| key.as_bytes())).unwrap()
    }

    fn message() -> Message {
        Message::Hand(Hand { step: Step::Take, addresses: vec!["192.0.2.1".parse().unwrap()] })
    }

    #[test]
    fn each_version_is_read_by_whoever_has_the_key_and_all_but_the_first_ask_for_the_incarnation() {
        let mine = ring("one", &["0123456789abcdef"]);
        for version in ALL {
            let datagram = mine.seal(version, FROM, TO, &message());
            let tongue = Tongue { version, reads: version };
            let opened = Opened { from: FROM, to: TO, tongue, message: message() };
            assert_eq!(mine.open(TO, &datagram), Ok(opened));
            let misdirected = Err(DatagramError::Misdirected(TO));
            assert_eq!(mine.open(FROM, &datagram), misdirected);
            let other = ring("one", &["fedcba9876543210"]).open(TO, &datagram);
            assert_eq!(other, Err(DatagramError::Forged));
            // A longer name has a shorter one in front, or what fills a block behind it.
            for elsewhere in ["", "two", "on", "one1", "one\0"] {
                let opened = ring(elsewhere, &["0123456789abcdef"]).open(TO, &datagram);
                assert_eq!(opened.is_ok(), version == Version::First, "{elsewhere:?}: {opened:?}");
            }
        }
    }

    #[test]
    fn no_octet_of_a_datagram_may_change_and_no_version_passes_for_another() {
        for (incarnation, version) in [
            ("", Version::First),
            ("", Version::Second),
            ("one", Version::Second),
            ("one", Version::Third),
        ] {
            let mine = ring(incarnation, &["0123456789abcdef"]);
            let datagram = mine.seal(version, FROM, TO, &message());
            for at in 0..datagram.len() {
                for flip in 1..=u8::MAX {
                    let mut changed = datagram.clone();
                    changed[at] ^= flip;
                    assert_eq!(mine.open(TO, &changed), Err(DatagramError::Forged), "{at}, {flip}");
                }
            }
            for length in 0..datagram.len() {
                assert!(mine.open(TO, &datagram[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn keys_are_changed_while_nodes_run_in_any_version() {
        let (old, new) = ("0123456789abcdef", "fedcba9876543210");
        let steps = [vec![old], vec![old, new], vec![new, old], vec![new]];
        for version in ALL {
            for pair in steps.windows(2) {
                let [before, after] = [0, 1].map(|at: usize| ring("one", &pair[at]));
                for (by, to) in [(&before, &after), (&after, &before)] {
                    assert!(to.open(TO, &by.seal(version, FROM, TO, &message())).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_key_that_can_be_guessed_is_refused() {
        let error = Keyring::new("one", [&b"0123456789abcde"[..]]).unwrap_err();
        assert_eq!(error.to_string(), "key of 15 octets: must be at least 16");
        assert_eq!(Keyring::new("one", []).unwrap_err(), KeyError::Missing);
    }

    #[test]
    fn an_incarnation_costs_no_datagram_anything() {
        for incarnation in ["", "5f3c5a52-6a0c-4d5e-9f43-8d1e0f6f3a11", &"x".repeat(100)] {
            assert_eq!(prefix(incarnation).len() % BLOCK, 0);
            assert_eq!(prefix(incarnation)[0], 0, "nor is it a message");
        }
    }
}
