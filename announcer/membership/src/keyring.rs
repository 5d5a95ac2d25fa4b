//! Owns the keys that authenticate messages. A datagram that none of them signed, or that is for another node, is
//! refused before anything in it is looked at.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::message::Message;
use crate::name::NodeId;
use crate::wire::{DatagramError, decode, encode};

const TAG: usize = 32;

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
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Hmac<Sha256>>,
}

impl Keyring {
    /// The keys in order.
    ///
    /// # Errors
    /// If there is none or one is shorter than 16 octets.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, KeyError> {
        let keys: Result<Vec<_>, _> = keys.into_iter().map(keyed).collect();
        match keys? {
            keys if keys.is_empty() => Err(KeyError::Missing),
            keys => Ok(Self { keys }),
        }
    }

    /// The datagram that carries a message.
    pub(crate) fn seal(&self, from: NodeId, to: NodeId, message: &Message) -> Vec<u8> {
        let mut octets = encode(from, to, message);
        let mut mac = self.keys[0].clone();
        mac.update(&octets);
        octets.extend(mac.finalize().into_bytes());
        octets
    }

    /// The message in a datagram for `me`, and its sender.
    pub(crate) fn open(
        &self,
        me: NodeId,
        datagram: &[u8],
    ) -> Result<(NodeId, Message), DatagramError> {
        let (octets, tag) = datagram.split_last_chunk::<TAG>().ok_or(DatagramError::Truncated)?;
        let signed = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            mac.update(octets);
            mac.verify_slice(tag).is_ok()
        };
        if !self.keys.iter().any(signed) {
            return Err(DatagramError::Forged);
        }
        let (from, to, message) = decode(octets)?;
        if to == me { Ok((from, message)) } else { Err(DatagramError::Misdirected(to)) }
    }
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
