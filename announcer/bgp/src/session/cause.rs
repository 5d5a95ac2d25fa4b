//! Why a session is not up, in words that say whose turn it is.

use std::fmt;

use crate::wire::Notification;

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody answered. A wrong TCP-MD5 password looks like that: what is signed by another is dropped without a word.
    NoAnswer,
    /// The system could not connect, in its words.
    Connect(String),
    /// The connection broke or was closed, in the system's words where there are any.
    Lost(String),
    /// The peer ended it.
    Received(Notification),
    /// This speaker ended it.
    Sent(Notification),
    /// The peer did not read what was sent to it for so long that it was given up (RFC 9687).
    NotRead,
    /// This speaker restarts, and says nothing, for routes to be kept.
    Restart,
    /// The session is to be another one, and begins anew; for routes to be kept nothing is said.
    Edited,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer: wrong password, or filtered?"),
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Received(notification) => write!(f, "the peer ended it: {notification}"),
            Self::Sent(notification) => write!(f, "ended: {notification}"),
            Self::NotRead => f.write_str("the peer reads nothing"),
            Self::Restart => f.write_str("this speaker restarts"),
            Self::Edited => f.write_str("it begins anew, since it was edited"),
        }
    }
}

/// How a session is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This speaker comes back: nothing is said, and a peer that keeps routes keeps them.
    Restart,
    /// This speaker goes, for this reason: routes are not kept.
    Shutdown(String),
    /// The peer is not configured any more: routes are not kept.
    Removed,
    /// The session is to begin anew, with other parameters.
    Reset,
}
