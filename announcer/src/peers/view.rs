//! Owns where the view is. In a cluster that is an object: the voters, in an annotation of one Lease. It is created once
//! and then only ever replaced, by compare-and-swap on the version that was read. A list of members has one view for ever.
//!
//! It carries a finalizer, so that deleting it by mistake takes nothing away: a node that started without it would take
//! itself for the first of its cluster.

use std::time::{Duration, Instant};

use berth_api::election::Held;
use berth_api::names::{label, lease};
use berth_membership::{Bounds, NodeId, View, ViewError, Voters};
use berth_runtime::freshness::Freshness;
use berth_runtime::http::Health;
use berth_runtime::lease::Tenure;
use berth_runtime::watch::chain;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::watcher::Event;
use kube::{Client, Error, ResourceExt};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::config::Fixed;
use crate::ownership::membership::{Command, Proposal};
use crate::source::cluster::Name;
use crate::source::view::{self as seen, ANNOTATION, Reader, TIMEOUT};
use crate::source::watch::CONTROL_PLANES;

/// Keeps the object until an operator takes this away.
const FINALIZER: &str = "berth.dev/membership";

/// How the view is written.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    epoch: u64,
    voters: Vec<String>,
    #[serde(default)]
    previous: Vec<Vec<String>>,
    /// The shortest and the longest lease in milliseconds, unless they are the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leases: Option<(u64, u64)>,
}

/// What a first view waits for: that members hold the Lease by which others decide.
pub struct Gate {
    /// Until when they surely do.
    pub tenure: Tenure,
    /// The Lease.
    pub lease: Name,
    /// Probes. A node that waits is ready, or a rollout that is to replace the Lease's holder would stop.
    pub health: Health,
    /// This node, where members are those of the control plane: they know each other by a label of their Nodes.
    pub labelled: Option<String>,
}

/// What readiness tells under it that this node has no such label.
const LABELLED: &str = "control-plane label";

/// What readiness tells that the stored view is older under.
const STORED: &str = "stored view";

/// How often is looked who holds the Lease instead.
const LOOK: Duration = Duration::from_secs(2);

/// Where the view is.
pub enum ViewStore {
    /// In a Lease of the cluster.
    Lease {
        /// How the API server is reached.
        client: Client,
        /// Where the Lease is.
        namespace: String,
        /// Its name.
        name: &'static str,
    },
    /// Nowhere: it never changes.
    Fixed(View),
}

impl ViewStore {
    /// The view of a list of members.
    ///
    /// # Errors
    /// When it has no members.
    pub fn fixed(fixed: &Fixed) -> Result<Self, ViewError> {
        let voters = fixed.voters().iter().map(|voter| NodeId::of(&voter.name));
        Ok(Self::Fixed(View::new(1, Voters::new(voters)?, Vec::new())?))
    }

    /// The same; readiness tells when the API server is not heard.
    pub fn fresh(self, health: &Health) -> Self {
        match self {
            Self::Lease { client, namespace, name } => {
                let freshness = Freshness::new("membership view watch", Instant::now());
                health.fresh(&freshness);
                Self::Lease { client: freshness.client(&client), namespace, name }
            }
            Self::Fixed(view) => Self::Fixed(view),
        }
    }

    /// Whether there is a view, or may be: waits as long as the cluster does not answer.
    pub async fn exists(&self) -> bool {
        match self {
            Self::Lease { client, namespace, name } => {
                Reader::new(client.clone(), namespace, name).finds().await
            }
            Self::Fixed(_) => true,
        }
    }

    /// Tells the view, whenever it changes, and stores what is proposed where it may, a first one through the gate, until the
    /// driver is gone.
    pub async fn keep(
        self,
        mut proposals: mpsc::UnboundedReceiver<Proposal>,
        tell: mpsc::UnboundedSender<Command>,
        gate: Gate,
    ) {
        match self {
            Self::Lease { client, namespace, name } => {
                keep(Reader::new(client, &namespace, name), proposals, tell, gate).await;
            }
            Self::Fixed(view) => {
                // The driver may be gone.
                let _ = tell.send(Command::Fixed(view));
                while proposals.recv().await.is_some() {}
            }
        }
    }
}

/// Reads the view, watches it, and stores what is proposed, until the driver is gone.
async fn keep(
    reader: Reader,
    mut proposals: mpsc::UnboundedReceiver<Proposal>,
    tell: mpsc::UnboundedSender<Command>,
    gate: Gate,
) {
    let (api, name) = (reader.api().clone(), reader.name());
    let (see, is_seen) = watch::channel(false);
    let mut store = Store { reader, tell: tell.clone(), gate, is_seen };
    let found = store.reader.read().await;
    store.say(found.as_ref());
    let storing = async {
        while let Some(proposal) = proposals.recv().await {
            store.propose(&proposal).await;
        }
    };
    tokio::select! {
        () = storing => {}
        () = follow(api, name, tell, see) => {}
    }
}

async fn follow(
    api: Api<Lease>,
    name: &'static str,
    tell: mpsc::UnboundedSender<Command>,
    see: watch::Sender<bool>,
) {
    let mut watch = Box::pin(seen::watch(api, name));
    while let Some(event) = watch.next().await {
        let told = match event {
            Event::InitApply(lease) | Event::Apply(lease) => view(&lease).map(Command::View),
            Event::Delete(_) => {
                tracing::error!(
                    "the view was deleted: start no announcer until all others are stopped, then start them all"
                );
                None
            }
            Event::Init | Event::InitDone => None,
        };
        if let Some(told) = told {
            see.send_replace(true);
            if tell.send(told).is_err() {
                return;
            }
        }
    }
}

struct Store {
    reader: Reader,
    tell: mpsc::UnboundedSender<Command>,
    gate: Gate,
    /// Whether a view was seen.
    is_seen: watch::Receiver<bool>,
}

impl Store {
    fn say(&self, found: Option<&Lease>) {
        // The driver may be gone.
        let _ = match found {
            None => self.tell.send(Command::NoView),
            Some(lease) => match view(lease) {
                Some(view) => self.tell.send(Command::View(view)),
                None => Ok(()),
            },
        };
    }

    /// Stores a proposal, or says that it surely is not stored.
    async fn propose(&mut self, proposal: &Proposal) {
        let found = match proposal.from_epoch {
            0 => self.may_create().await,
            _ => self.reader.read().await,
        };
        let epoch = found.as_ref().and_then(view).map_or(0, |view| view.epoch());
        let stored =
            if found.is_some() == (proposal.from_epoch != 0) && epoch == proposal.from_epoch {
                self.write(found, proposal).await
            } else {
                if epoch < proposal.from_epoch {
                    // Nothing here brings it back: a cluster must not go on from a view that somebody took away.
                    let why = "it is gone, or older than the one in force";
                    self.reader.pause("replace", why).await;
                }
                found
            };
        let name = self.reader.name();
        match older(name, epoch, proposal.from_epoch) {
            Some(why) => self.gate.health.missing(STORED, why),
            None => self.gate.health.forget(STORED),
        }
        self.say(stored.as_ref());
        let _ = self.tell.send(Command::NotStored(proposal.from_epoch));
    }

    /// Waits until a first view may be created, or there is one, which it gives: nobody goes by the Lease for as long as the
    /// write may take.
    async fn may_create(&mut self) -> Option<Lease> {
        let mut told = String::new();
        loop {
            let found = self.reader.read().await;
            if found.is_some() {
                self.gate.health.forget(LABELLED);
                return found;
            }
            if !self.may_found().await {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            // The last thing that is looked at: nobody may go by the Lease for as long as the write takes.
            if self.gate.tenure.until(Instant::now() + TIMEOUT).is_some() {
                return None;
            }
            tokio::select! {
                () = self.gate.tenure.changed() => continue,
                seen = self.is_seen.changed() => match seen {
                    Ok(()) => continue,
                    Err(_) => return None,
                },
                () = tokio::time::sleep(LOOK) => {}
            }
            let lease = &self.gate.lease;
            let why = match self.held().await {
                Ok(Held::By { identity, .. }) if identity == lease::MEMBERS => format!(
                    "members hold Lease {lease} and there is no view: if it was taken away, stop all announcers, then start them all"
                ),
                Ok(Held::By { identity, .. }) => {
                    self.gate.health.ready("membership");
                    format!("{identity} goes by Lease {lease}: membership begins when it ends")
                }
                Ok(Held::Nobody | Held::Gone) => continue,
                Err(why) => format!("Lease {lease} is needed before there is a view: {why}"),
            };
            if told != why {
                tracing::warn!("{why}");
                told = why;
            }
        }
    }

    /// Whether this node is one of those that members are. Where no Node has the label, as in the first minute of a cluster, it may
    /// be; one without it among others that have it would found a view that they never come into.
    async fn may_found(&self) -> bool {
        let Some(node) = &self.gate.labelled else { return true };
        let api: Api<Node> = Api::all(self.reader.api().clone().into_client());
        let labelled = ListParams::default().labels(CONTROL_PLANES);
        let found = match tokio::time::timeout(TIMEOUT, api.list_metadata(&labelled)).await {
            Ok(Ok(found)) => found.items,
            Ok(Err(error)) => {
                let why = format!("whether this is a control-plane node: {}", chain(&error));
                self.gate.health.waits(LABELLED, why);
                return false;
            }
            Err(_) => {
                let why = "whether this is a control-plane node: no answer".to_owned();
                self.gate.health.waits(LABELLED, why);
                return false;
            }
        };
        let named = found.iter().filter(|one| one.labels().contains_key(CONTROL_PLANES));
        let named: Vec<String> = named.map(ResourceExt::name_any).collect();
        if named.is_empty() || named.contains(node) {
            self.gate.health.forget(LABELLED);
            return true;
        }
        let why = format!(
            "Node {node} has no label {CONTROL_PLANES}, which other Nodes have, and by which members know each other: accepted is \
             kubectl label node {node} {CONTROL_PLANES}="
        );
        self.gate.health.waits(LABELLED, why);
        false
    }

    /// Who holds the Lease.
    async fn held(&self) -> Result<Held, String> {
        let Name { namespace, name } = &self.gate.lease;
        let api: Api<Lease> = Api::namespaced(self.reader.api().clone().into_client(), namespace);
        match tokio::time::timeout(TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(found)) => Ok(found.as_ref().map_or(Held::Gone, Held::of)),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// Writes, and gives what is stored then, by whomever.
    async fn write(&mut self, found: Option<Lease>, proposal: &Proposal) -> Option<Lease> {
        let (parameters, api) = (PostParams::default(), self.reader.api());
        let name = self.reader.name();
        let lease = object(found.clone(), name, proposal);
        let request = async {
            match found {
                Some(_) => api.replace(name, &parameters, &lease).await,
                None => api.create(&parameters, &lease).await,
            }
        };
        match tokio::time::timeout(TIMEOUT, request).await {
            Ok(Ok(stored)) => {
                self.reader.succeeded();
                let (epoch, voters) = (proposal.view.epoch(), proposal.voters.join(", "));
                tracing::info!(epoch, voters, "stored a view");
                return Some(stored);
            }
            Ok(Err(Error::Api(status))) if status.code == 409 => {}
            Ok(Err(error)) => self.reader.pause("store", &chain(&error)).await,
            Err(_) => self.reader.pause("store", "no answer").await,
        }
        self.reader.read().await
    }
}

/// What is said of a stored view of this epoch while nodes go by another one.
fn older(name: &str, stored: u64, in_force: u64) -> Option<String> {
    let found = match stored {
        0 => "is gone".to_owned(),
        epoch => format!("has epoch {epoch}"),
    };
    (stored < in_force).then(|| {
        format!(
            "the view of Lease {name} {found} and the one in force has {in_force}, as when etcd was restored from a backup: who has \
             an address goes on, and no node is taken up or left out any more; stop all announcers, remove the view, empty \
             berth_cp_folder on each node where there is one, then start them all"
        )
    })
}

/// The object with another view; everything else of it stays.
fn object(found: Option<Lease>, name: &str, proposal: &Proposal) -> Lease {
    // Who proposes may have heard of the view before from a node that knows no bounds.
    let bounds = found.as_ref().and_then(view).map_or(proposal.view.bounds(), |view| view.bounds());
    let text = write(&proposal.view.clone().within(bounds));
    let made = || Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(label::MANAGED_BY.to_owned(), label::BERTH.to_owned())].into()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    let mut lease = found.unwrap_or_else(made);
    lease.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(proposal.voters.join(",")).filter(|names| !names.is_empty());
    lease
}

/// What an object has for a view; nothing where it has no such annotation.
///
/// # Errors
/// Why that is no view, in 200 letters.
pub(super) fn has(lease: &Lease) -> Option<Result<View, String>> {
    let text = lease.metadata.annotations.as_ref()?.get(ANNOTATION)?;
    Some(read(text).map_err(|error| error.chars().take(200).collect()))
}

/// What is told of an object that holds no view.
pub(super) fn holds_none(lease: &Lease) -> String {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    format!("Lease {name}: its annotation {ANNOTATION} holds no view")
}

/// The view of an object; nothing, and a word about it, if it holds none.
fn view(lease: &Lease) -> Option<View> {
    match has(lease).unwrap_or_else(|| Err("there is no such annotation".to_owned())) {
        Ok(view) => Some(view),
        Err(error) => {
            tracing::error!(error, "{}", holds_none(lease));
            None
        }
    }
}

/// The last epoch that is believed, as `overlays/policies` has it, and more than there ever are: after the very last one no view
/// could follow, and who wrote that once would have silenced all nodes, which keep it.
const LAST_EPOCH: u64 = 1_000_000_000_000_000_000;

/// A view as it is written.
pub(super) fn write(view: &View) -> String {
    let names = |set: &Voters| set.nodes().iter().map(NodeId::to_string).collect();
    let bounds = view.bounds();
    let written = Written {
        epoch: view.epoch(),
        voters: names(view.voters()),
        previous: view.previous().iter().map(names).collect(),
        leases: Some(bounds).filter(|bounds| *bounds != Bounds::default()).map(millis),
    };
    serde_json::to_string(&written).unwrap_or_default()
}

/// The view that is written so.
///
/// # Errors
/// Why it is none.
pub(super) fn read(text: &str) -> Result<View, String> {
    let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let set = |ids: &Vec<String>| {
        let id = |text: &String| {
            let bits = u64::from_str_radix(text, 16);
            bits.map(NodeId::from_bits).map_err(|error| format!("{text:?}: {error}"))
        };
        let ids = ids.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        Voters::new(ids).map_err(|error| error.to_string())
    };
    let previous = written.previous.iter().map(set).collect::<Result<Vec<_>, _>>()?;
    let bounds = match written.leases {
        Some((floor, ceiling)) => {
            let [floor, ceiling] = [floor, ceiling].map(Duration::from_millis);
            Bounds::new(floor, ceiling).map_err(|error| error.to_string())?
        }
        None => Bounds::default(),
    };
    if written.epoch > LAST_EPOCH {
        return Err(format!("epoch {}; accepted is {LAST_EPOCH} at most", written.epoch));
    }
    let view = View::new(written.epoch, set(&written.voters)?, previous);
    Ok(view.map_err(|error| error.to_string())?.within(bounds))
}

fn millis(bounds: Bounds) -> (u64, u64) {
    let of = |lease: Duration| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    (of(bounds.floor()), of(bounds.ceiling()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use berth_api::names::lease::VIEW;

    use super::*;
    use crate::config::{Key, Member};

    #[test]
    fn what_nobody_can_read_is_no_view_and_is_told_in_few_letters() {
        let lease = |text: Option<&str>| -> Lease {
            let annotations = text.map(|text| json!({ ANNOTATION: text }));
            serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).unwrap()
        };
        assert!(has(&lease(None)).is_none());
        assert!(has(&lease(Some(r#"{"epoch":1,"voters":["a"]}"#))).unwrap().is_ok());
        let long = format!(r#"{{"epoch":1,"voters":["{}"]}}"#, "x".repeat(1_000));
        let nobody = r#"{"epoch":1,"voters":[]}"#;
        for text in ["", "x", nobody, r#"{"epoch":0,"voters":["a"]}"#, &long] {
            let why = has(&lease(Some(text))).unwrap().unwrap_err();
            assert!(!why.is_empty() && why.len() <= 200, "{text}: {why}");
        }
    }

    #[test]
    fn an_epoch_after_which_none_could_follow_is_not_believed() {
        let text = |epoch: u64| format!(r#"{{"epoch":{epoch},"voters":["a"],"previous":[]}}"#);
        assert_eq!(read(&text(LAST_EPOCH)).unwrap().epoch(), LAST_EPOCH);
        for epoch in [LAST_EPOCH + 1, u64::MAX] {
            assert!(read(&text(epoch)).unwrap_err().contains("accepted is"), "{epoch}");
        }
    }

    #[test]
    fn a_view_is_read_as_it_was_written_and_the_rest_of_the_object_stays() {
        let set = |ids: &[u64]| Voters::new(ids.iter().map(|id| NodeId::from_bits(*id))).unwrap();
        let stored = View::new(7, set(&[1, u64::MAX]), vec![set(&[1]), set(&[2, 3])]).unwrap();
        let voters = vec!["node-a".to_owned(), "node-b".to_owned()];
        let proposal = Proposal { from_epoch: 6, view: stored.clone(), voters };
        let mut found = object(None, VIEW, &proposal);
        assert_eq!(found.metadata.finalizers.as_deref(), Some(&[FINALIZER.to_owned()][..]));
        found.metadata.resource_version = Some("41".to_owned());
        let again = object(Some(found), VIEW, &proposal);
        assert_eq!(view(&again), Some(stored));
        assert_eq!(again.metadata.resource_version.as_deref(), Some("41"), "compare and swap");
        assert_eq!(again.spec.unwrap().holder_identity.as_deref(), Some("node-a,node-b"));
    }

    #[test]
    fn a_view_with_other_leases_says_so_and_the_next_one_goes_on_with_them() {
        let read = |leases: &str| read(&format!(r#"{{"epoch":7,"voters":["1"]{leases}}}"#));
        assert_eq!(read("").unwrap().bounds(), Bounds::default());
        let wide = read(r#","leases":[100,500]"#).unwrap();
        assert_eq!(wide.bounds().ceiling(), Duration::from_millis(500));
        let proposal = Proposal { from_epoch: 6, view: wide.clone(), voters: Vec::new() };
        assert_eq!(view(&object(None, VIEW, &proposal)), Some(wide.clone()));
        let error = read(r#","leases":[20,500]"#).unwrap_err();
        assert!(error.contains("must be from 100ms to 350ms"), "{error}");
        let usual = Proposal { from_epoch: 6, view: read("").unwrap(), voters: Vec::new() };
        let found = object(None, VIEW, &proposal);
        let next = view(&object(Some(found), VIEW, &usual)).unwrap();
        assert_eq!(next.bounds(), wide.bounds(), "who proposes may have heard of none");
        let text = object(None, VIEW, &usual).metadata.annotations.unwrap()[ANNOTATION].clone();
        assert_eq!(text, r#"{"epoch":7,"voters":["0000000000000001"],"previous":[]}"#);
    }

    #[test]
    fn of_a_list_the_first_three_or_five_vote_on_every_node_alike() {
        for (count, votes) in [(3, 3), (4, 3), (5, 5), (7, 5)] {
            let name = |number: usize| format!("node-{number}");
            let member = |number| Member { name: name(number), addresses: Vec::new() };
            let members: Vec<_> = (0..count).map(member).collect();
            let key = Key::new(Vec::new());
            let fixed = Fixed { members, key, addresses: Vec::new(), port: 1 };
            let Ok(ViewStore::Fixed(view)) = ViewStore::fixed(&fixed) else { panic!("a view") };
            let expected = Voters::new((0..votes).map(|number| NodeId::of(&name(number)))).unwrap();
            assert_eq!((view.epoch(), view.voters()), (1, &expected));
        }
    }

    #[test]
    fn whatever_arrives_as_the_view_is_read_or_passed_over() {
        let written =
            r#"{"epoch":7,"voters":["1","ffffffffffffffff"],"previous":[["1"],["2","3"]]}"#;
        let sample = json!({ "metadata": { "annotations": { ANNOTATION: written } } });
        let read = |text: &[u8]| serde_json::from_slice::<Lease>(text).ok().and_then(|l| view(&l));
        assert_eq!(read(sample.to_string().as_bytes()).map(|view| view.epoch()), Some(7));
        berth_hostile::objects(&[sample], |text| _ = read(text));
        berth_hostile::octets(&[written.into()], |text| {
            let _ = super::read(&String::from_utf8_lossy(text));
        });
    }

    #[test]
    fn what_is_no_view_says_why() {
        assert!(read("").is_err());
        assert!(read(r#"{"epoch":1,"voters":[]}"#).unwrap_err().contains("must be 1 to 5"));
        assert!(read(r#"{"epoch":1,"voters":["node-a"]}"#).unwrap_err().contains("node-a"));
        assert!(read(r#"{"epoch":0,"voters":["1"]}"#).unwrap_err().contains("epoch"));
    }

    #[test]
    fn a_stored_view_that_is_older_than_the_one_in_force_is_told_with_the_way_out() {
        assert_eq!(older("berth-membership-cp", 7, 7), None);
        assert_eq!(older("berth-membership-cp", 8, 7), None);
        assert_eq!(older("berth-membership-cp", 0, 0), None, "there was none yet");
        let told = |stored| older("berth-membership-cp", stored, 7).unwrap();
        assert!(told(3).contains("has epoch 3 and the one in force has 7"), "{}", told(3));
        assert!(told(0).contains("berth-membership-cp is gone and"), "{}", told(0));
        assert!(told(3).contains("stop all announcers"), "{}", told(3));
    }
}
