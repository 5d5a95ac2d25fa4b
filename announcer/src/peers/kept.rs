//! What outlives the power of a control-plane node: the newest view that it stood in, the keys and the peers. With them members
//! find each other, and decide, before any API server is up.
//!
//! Guarantee: what is told to be kept is on the disk, and is there as a whole or as it was before. A view is only ever followed by
//! a later one.
//!
//! Each file is a line of JSON, and a line with its SHA-256: what is not as it was written is as if it were not there.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, rename};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use berth_membership::View;
use berth_runtime::http::Health;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::key::Keys;
use super::view;
use crate::ownership::membership::{Command, Keep};
use crate::vip::nodes::{Peer, Peers};

const VIEW: &str = "view.json";
const KEYS: &str = "keys.json";
const PEERS: &str = "peers.json";

/// The name of the task, and of the readiness check.
pub(crate) const TASK: &str = "membership on disk";

/// How soon is tried again what the disk does not take.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the disk is tried while there is nothing to keep: what it does not take is to be told before somebody dies.
const TRIED: Duration = Duration::from_secs(60);

/// A view, and the incarnation of the cluster that it is of.
#[derive(Serialize, Deserialize)]
struct Stood {
    incarnation: String,
    view: String,
}

/// What an earlier run has kept, and where.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    pub(super) keys: Option<Keys>,
    pub(super) peers: BTreeMap<String, Vec<IpAddr>>,
    pub(super) view: Option<View>,
}

impl Kept {
    /// Reads what there is. A file that is damaged is told of and is as if it were not there: then the API server is waited for.
    ///
    /// # Errors
    /// When the folder cannot be made or written to: no view could be kept.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let place = || format!("berth_cp_folder={}", folder.display());
        let accepted = || {
            format!(
                "{}: accepted is a folder that root of this node may make and write to",
                place()
            )
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(accepted)?;
        probe(folder).with_context(accepted)?;
        let keys: Option<Keys> = read(folder, KEYS).with_context(place)?;
        let keys = keys.filter(|keys| keys.ring().is_ok());
        let peers = read(folder, PEERS).with_context(place)?.unwrap_or_default();
        let stood: Option<Stood> = read(folder, VIEW).with_context(place)?;
        // A view of another cluster is none.
        let stood = stood.filter(|stood| {
            keys.as_ref().is_some_and(|keys| keys.incarnation == stood.incarnation)
        });
        let view = stood.and_then(|stood| view::read(&stood.view).ok());
        Ok(Self { folder: folder.to_owned(), keys, peers, view })
    }

    /// Whether this node may go on without an API server.
    pub(crate) fn goes_on(&self) -> bool {
        self.view.is_some()
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The peers, as far as they are known by that.
    pub(super) fn peers(&self) -> impl Iterator<Item = (String, Peer)> {
        self.peers.iter().map(|(name, addresses)| {
            (name.clone(), Peer { addresses: addresses.clone(), ..Peer::default() })
        })
    }

    /// Keeps keys. A view of another incarnation counts no more from then on.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn know(&mut self, keys: Keys) -> io::Result<()> {
        write(&self.folder, KEYS, &keys)?;
        self.keys = Some(keys);
        Ok(())
    }

    /// Keeps what it is told to, in that order, and says so of each view, until nobody tells it anything any more.
    pub(super) async fn keep(
        self,
        mut told: UnboundedReceiver<Keep>,
        say: UnboundedSender<Command>,
        health: Health,
    ) {
        let incarnation = self.keys.map(|keys| keys.incarnation).unwrap_or_default();
        loop {
            let next = match tokio::time::timeout(TRIED, told.recv()).await {
                Ok(Some(next)) => Some(next),
                Ok(None) => return,
                Err(_) => None,
            };
            loop {
                let (folder, incarnation, next) =
                    (self.folder.clone(), incarnation.clone(), next.clone());
                let writing = tokio::task::spawn_blocking(move || match next {
                    Some(next) => keep(&folder, incarnation, &next),
                    None => probe(&folder),
                });
                let error = match writing.await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                let folder = self.folder.display();
                let why = format!(
                    "berth_cp_folder={folder}: {error}; this node goes over to no other view until that is mended, and if another one of three dies, nobody has the \
                     address"
                );
                tracing::error!("{why}");
                health.unready(TASK, why);
                tokio::time::sleep(AGAIN).await;
            }
            health.ready(TASK);
            if let Some(Keep::View(view)) = next {
                // The driver may be gone.
                let _ = say.send(Command::Kept(view));
            }
        }
    }
}

/// Whether the folder takes something.
fn probe(folder: &Path) -> io::Result<()> {
    write(folder, "probe", &())?;
    std::fs::remove_file(folder.join("probe"))
}

/// Removes all of it, for a node that is to be one of another cluster.
///
/// # Errors
/// What the disk says.
pub(crate) fn forget(folder: &Path) -> io::Result<()> {
    for name in [VIEW, KEYS, PEERS] {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn keep(folder: &Path, incarnation: String, what: &Keep) -> io::Result<()> {
    match what {
        Keep::View(next) => write(folder, VIEW, &Stood { incarnation, view: view::write(next) }),
        Keep::Peers(peers) => write(folder, PEERS, &addresses(peers)),
    }
}

fn addresses(peers: &Peers) -> BTreeMap<String, Vec<IpAddr>> {
    peers.iter().map(|(name, peer)| (name.to_owned(), peer.addresses.clone())).collect()
}

/// Puts a file in the place of the one before, as a whole, for whoever looks after the next loss of power too.
fn write(folder: &Path, name: &str, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(what)?;
    let digest = digest(&text);
    let (new, place) = (folder.join(format!("{name}.new")), folder.join(name));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{text}\n{digest}")?;
    file.sync_all()?;
    rename(&new, &place)?;
    File::open(folder)?.sync_all()
}

/// What a file holds; nothing, and a word about it, if it is damaged.
fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> io::Result<Option<T>> {
    let path = folder.join(name);
    let text = match std::fs::read(&path) {
        Ok(octets) => String::from_utf8_lossy(&octets).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    let (line, sum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let found = if digest(line) == sum { serde_json::from_str(line).ok() } else { None };
    if found.is_none() {
        tracing::error!(file = %path.display(), "it is not as it was written: the API server is waited for, which has the same");
    }
    Ok(found)
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use berth_membership::{NodeId, Voters};

    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("berth-kept-{}-{name}", std::process::id())))
    }

    fn stood(epoch: u64) -> View {
        let voters = ["a", "b", "c"].map(NodeId::of);
        View::new(epoch, Voters::new(voters).unwrap(), Vec::new()).unwrap()
    }

    fn keys(incarnation: &str) -> Keys {
        let key = "a2V5IG9mIHRoaXJ0eS10d28gb2N0ZXRzLCBmb3IgYSB0ZXN0";
        let keys = serde_json::json!({ "incarnation": incarnation, "keys": [key] });
        serde_json::from_value(keys).unwrap()
    }

    /// Has views kept, and gives those that it is said of.
    async fn kept(kept: Kept, views: &[View]) -> Vec<View> {
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
        let mut peers = Peers::default();
        let addresses = vec!["192.0.2.11".parse().unwrap()];
        peers.apply("a".to_owned(), Peer { addresses, ..Peer::default() });
        tell.send(Keep::Peers(peers)).unwrap();
        views.iter().for_each(|view| tell.send(Keep::View(view.clone())).unwrap());
        drop(tell);
        kept.keep(told, say, Health::default()).await;
        let mut views = Vec::new();
        while let Some(said) = said.recv().await {
            match said {
                Command::Kept(view) => views.push(view),
                other => panic!("{other:?}"),
            }
        }
        views
    }

    #[tokio::test]
    async fn the_next_run_finds_the_newest_view_with_keys_and_peers() {
        let folder = folder("next");
        let mut first = Kept::open(&folder.0).unwrap();
        assert!(!first.goes_on() && first.keys.is_none());
        first.know(keys("one")).unwrap();
        assert_eq!(kept(first, &[stood(3), stood(4)]).await, [stood(3), stood(4)]);
        let next = Kept::open(&folder.0).unwrap();
        assert_eq!((next.view.clone(), next.keys.clone()), (Some(stood(4)), Some(keys("one"))));
        let (name, peer) = next.peers().next().unwrap();
        assert_eq!((name.as_str(), peer.addresses[0].to_string()), ("a", "192.0.2.11".to_owned()));
        // Keys of another cluster.
        let mut other = next;
        other.know(keys("two")).unwrap();
        assert!(!Kept::open(&folder.0).unwrap().goes_on());
    }

    #[tokio::test]
    async fn what_is_damaged_is_as_if_it_were_not_there() {
        let folder = folder("damaged");
        let mut first = Kept::open(&folder.0).unwrap();
        first.know(keys("one")).unwrap();
        kept(first, &[stood(3)]).await;
        let path = folder.0.join(VIEW);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            let found = Kept::open(&folder.0).unwrap().view;
            assert!(found.is_none() || found == Some(stood(3)), "octet {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            let found = Kept::open(&folder.0).unwrap().view;
            assert!(found.is_none() || at + 1 == whole.len(), "cut at {at}");
        }
        std::fs::write(&path, whole).unwrap();
        assert!(Kept::open(&folder.0).unwrap().goes_on());
        std::fs::write(folder.0.join(KEYS), "").unwrap();
        assert!(!Kept::open(&folder.0).unwrap().goes_on());
    }

    #[test]
    fn a_folder_that_cannot_be_had_is_named() {
        let error = Kept::open(Path::new("/proc/berth")).unwrap_err();
        let told = format!("{error:#}");
        let expected =
            "berth_cp_folder=/proc/berth: accepted is a folder that root of this node may make";
        assert!(told.starts_with(expected) && told.contains("No such file"), "{told}");
    }
}
