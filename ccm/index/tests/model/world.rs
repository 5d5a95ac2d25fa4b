//! The state that is explored, and what can happen in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_index::intake::{Change, Intake};
use berth_index::service::Standing;
use berth_index::write::{Outcome, Write};
use berth_index::{Index, Source};

use crate::cluster::key;
use crate::controller::{Cause, Controller};
use crate::shape::{self, Parts};
use crate::shared::Shared;
use crate::user::User;

/// How many faults of each kind may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Faults {
    /// A controller dies and is started again. What it had sent may still arrive.
    pub(crate) crashes: u8,
    /// A write is applied and its answer lost.
    pub(crate) lost: u8,
    /// 429.
    pub(crate) busy: u8,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The user acts.
    User(User),
    /// The watch of a controller shows Services, up to now.
    ShowServices(usize),
    /// The watch of a controller shows claims, up to now.
    ShowClaims(usize),
    /// A controller decides.
    Decide(usize),
    /// The API server performs a write and the controller hears of it.
    Perform(usize, usize),
    /// The API server performs a write and the controller does not hear of it.
    Lose(usize, usize),
    /// The API server is too busy for a write.
    Refuse(usize, usize),
    /// A controller dies; another starts with a full list. What was sent arrives later, or never.
    Crash(usize),
    /// A write of a dead controller arrives.
    Arrive(usize),
    /// The announcer takes up what it sees.
    Announce(NamespacedName),
    /// The same of an EipBinding.
    Obey(NamespacedName),
}

impl Step {
    /// Whether the world could do without it.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self, Self::Lose(..) | Self::Refuse(..) | Self::Crash(_))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) cluster: Shared,
    /// Shared with the worlds from which this one comes, until one of them changes.
    pub(crate) controllers: Vec<Rc<Controller>>,
    ghosts: Vec<Write>,
    user: Vec<User>,
    pub(crate) faults: Faults,
    announces: bool,
    /// What nodes answer for, by the uid of the EipBinding.
    pub(crate) answers: BTreeMap<String, (NamespacedName, Vec<IpAddr>)>,
    /// Whether a claim that is there may be overwritten: the law is taken out.
    lawless: bool,
    /// Whether one watch shows Services and claims, so that neither is ahead of the other.
    one_watch: bool,
    /// Whether Services may share an address. Then `a` listens on port 80, all others on 443.
    pub(crate) shares: bool,
    pub(crate) now: Duration,
}

impl World {
    pub(crate) fn new(
        controllers: usize,
        user: impl IntoIterator<Item = User>,
        faults: Faults,
    ) -> Self {
        let mut world = Self {
            cluster: Shared::default(),
            controllers: Vec::new(),
            ghosts: Vec::new(),
            user: user.into_iter().collect(),
            faults,
            announces: false,
            answers: BTreeMap::new(),
            lawless: false,
            one_watch: false,
            shares: false,
            now: Duration::ZERO,
        };
        world.controllers = (0..controllers).map(|_| Rc::new(world.start())).collect();
        world
    }

    pub(crate) fn with_announcer(self) -> Self {
        Self { announces: true, ..self }
    }

    /// The API server lets everybody create a claim, whoever has it.
    pub(crate) fn without_the_law(self) -> Self {
        Self { lawless: true, ..self }
    }

    pub(crate) fn with_one_watch(self) -> Self {
        Self { one_watch: true, ..self }
    }

    pub(crate) fn with_sharing(self) -> Self {
        Self { shares: true, ..self }.after([])
    }

    /// This Service has had this address since before any controller started.
    pub(crate) fn serving(mut self, name: &'static str, address: &'static str) -> Self {
        self.act(&User::Create(name, Some(address)));
        let owner = self.cluster.services[&key(name)].owner();
        self.cluster.claim(address, owner);
        self.cluster.edit(name, |service| {
            service.deprecated = Some(address.to_owned());
            service.labelled = true;
            service.finalizers = service.finalizers.with(true);
        });
        self
    }

    /// The user has done this before any controller started.
    pub(crate) fn after(mut self, user: impl IntoIterator<Item = User>) -> Self {
        user.into_iter().for_each(|user| self.act(&user));
        self.controllers = self.controllers.iter().map(|_| Rc::new(self.start())).collect();
        self
    }

    /// This binding had our finalizer before any controller started.
    pub(crate) fn with_finalizer(mut self, name: &'static str) -> Self {
        self.cluster
            .edit_binding(name, |binding| binding.finalizers = binding.finalizers.with(true));
        self.after([])
    }

    /// Everything that this leads to has happened before, and controllers were just started.
    pub(crate) fn at_rest(mut self) -> Self {
        let next = |world: &Self| {
            let mut steps = world.steps().into_iter();
            steps.find(|step| !step.is_fault() && !matches!(step, Step::User(_)))
        };
        while let Some(step) = next(&self) {
            self.take(&step);
        }
        self.after([])
    }

    /// A controller that has listed everything and leads.
    fn start(&self) -> Controller {
        let mut index = Index::new(NamespacedName {
            namespace: "kube-system".to_owned(),
            name: "kubevip".to_owned(),
        });
        let mut intake = Intake::default();
        let share = if self.shares { "true" } else { "false" };
        let range = "192.0.2.1-192.0.2.2";
        let data = [("range-global", range), ("reuse-delay", "0s"), ("allow-share-global", share)];
        let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
        index.apply_pools("map".to_owned(), &data.into());
        index.lead(self.now);
        self.cluster
            .list()
            .into_iter()
            .for_each(|change| intake.take(change, &mut index, self.now));
        for source in Source::REQUIRED {
            index.listed(source, self.now);
        }
        let seen = self.cluster.log.len();
        Controller::new(index, seen)
    }

    /// Everything that makes a difference to what can follow, as one number.
    pub(crate) fn fingerprint(&self) -> u64 {
        let controllers = self.controllers.iter().map(|controller| {
            let unseen = |from: usize, services: bool| {
                let log = self.cluster.log[from..].iter();
                log.filter(|logged| is_of_service(&logged.0) == services).collect::<Vec<_>>()
            };
            let unseen = (unseen(controller.services, true), unseen(controller.claims, false));
            [controller.shape().clone(), shape::of(&unseen)]
        });
        let mut controllers: Vec<[Parts; 2]> = controllers.collect();
        // Which of the two is which makes no difference.
        controllers.sort();
        let Self { cluster, ghosts, user, faults, .. } = self;
        let rest = shape::of(&(&self.answers, ghosts, user, faults));
        shape::fingerprint(controllers.as_flattened().iter().chain([cluster.shape(), &rest]))
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        steps.extend(self.user.first().filter(|user| self.can(user)).map(|user| Step::User(*user)));
        for (number, controller) in self.controllers.iter().enumerate() {
            let unseen = |from: usize, services: bool| {
                self.cluster.log[from..].iter().any(|logged| is_of_service(&logged.0) == services)
            };
            if unseen(controller.services, true)
                || self.one_watch && unseen(controller.claims, false)
            {
                steps.push(Step::ShowServices(number));
            }
            if unseen(controller.claims, false) && !self.one_watch {
                steps.push(Step::ShowClaims(number));
            }
            if controller.decided(self.now).is_some() {
                steps.push(Step::Decide(number));
            }
            for write in 0..controller.under_way.len() {
                steps.push(Step::Perform(number, write));
                if self.faults.lost > 0 {
                    steps.push(Step::Lose(number, write));
                }
                if self.faults.busy > 0 {
                    steps.push(Step::Refuse(number, write));
                }
            }
            if self.faults.crashes > 0 {
                steps.push(Step::Crash(number));
            }
        }
        steps.extend((0..self.ghosts.len()).map(Step::Arrive));
        steps.extend(self.unannounced().map(Step::Announce));
        steps.extend(self.disobeyed().map(Step::Obey));
        steps
    }

    pub(crate) fn take(&mut self, step: &Step) {
        let now = self.now;
        match step {
            Step::User(user) => {
                self.user.remove(0);
                self.act(user);
            }
            Step::ShowServices(number) if self.one_watch => {
                self.show(*number, false);
                self.show(*number, true);
            }
            Step::ShowServices(number) => self.show(*number, true),
            Step::ShowClaims(number) => self.show(*number, false),
            Step::Decide(number) => {
                let decided = self.controllers[*number].decided(now).cloned();
                self.controllers[*number] = decided.expect("it has something to write");
            }
            Step::Perform(number, write) => self.perform(*number, *write, None),
            Step::Lose(number, write) => {
                self.faults.lost -= 1;
                self.perform(*number, *write, Some(Outcome::Unknown("timed out".to_owned())));
            }
            Step::Refuse(number, write) => {
                self.faults.busy -= 1;
                self.settle(*number, *write, Outcome::Throttled(Duration::from_secs(1)));
            }
            Step::Crash(number) => {
                self.faults.crashes -= 1;
                self.ghosts.extend(self.controllers[*number].under_way.iter().cloned());
                self.controllers[*number] = Rc::new(self.start());
            }
            Step::Arrive(ghost) => {
                let write = self.ghosts.remove(*ghost);
                self.send(&write);
            }
            Step::Announce(key) => self.cluster.announce(&key.name),
            Step::Obey(key) => self.obey(key),
        }
    }

    fn send(&mut self, write: &Write) -> Outcome {
        if let (true, Write::CreateClaim { address, .. }) = (self.lawless, write) {
            self.cluster.claims.remove(address);
        }
        self.cluster.perform(write)
    }

    fn perform(&mut self, number: usize, write: usize, answer: Option<Outcome>) {
        let outcome = self.send(&self.controllers[number].under_way[write].clone());
        self.settle(number, write, answer.unwrap_or(outcome));
    }

    fn settle(&mut self, number: usize, write: usize, outcome: Outcome) {
        let now = self.now;
        self.change(number, Cause::Settled { write, outcome: outcome.clone() }, |controller| {
            let write = controller.under_way.remove(write);
            controller.index.settle(&write, outcome, now);
            controller.index.take_reports();
            controller.index.take_latencies();
        });
    }

    fn change(&mut self, number: usize, cause: Cause, how: impl FnOnce(&mut Controller)) {
        let controller = &mut self.controllers[number];
        *controller = Controller::become_by(controller, cause, how);
    }

    fn show(&mut self, number: usize, services: bool) {
        let controller = &self.controllers[number];
        let from = if services { controller.services } else { controller.claims };
        let (length, now) = (self.cluster.log.len(), self.now);
        let news = self.cluster.log[from..].to_vec();
        let cause = Cause::Shown { services, length, news: news.clone() };
        self.change(number, cause, |controller| {
            let seen = if services { &mut controller.services } else { &mut controller.claims };
            *seen = length;
            let mut intake = Intake::default();
            for logged in news.into_iter().filter(|logged| is_of_service(&logged.0) == services) {
                intake.take(Change::clone(&logged.0), &mut controller.index, now);
            }
        });
    }

    fn unannounced(&self) -> impl Iterator<Item = NamespacedName> + '_ {
        let services = self.cluster.services.values().filter(|_| self.announces);
        services
            .filter(|service| {
                let served =
                    service.labelled && !service.deleting && service.standing == Standing::Ours;
                let wanted: Vec<IpAddr> =
                    service.annotation().addresses().filter(|_| served).collect();
                service.published != wanted || service.host.is_some() == wanted.is_empty()
            })
            .map(|service| service.key.clone())
    }
}

impl World {
    /// The announcers carry out what the status of a binding says, or let go of what is no binding's any more.
    fn obey(&mut self, key: &NamespacedName) {
        let gone =
            |uid: &String| self.cluster.bindings.get(key).is_none_or(|binding| binding.uid != *uid);
        let former: Vec<String> = self.answers.keys().filter(|uid| gone(uid)).cloned().collect();
        former.iter().for_each(|uid| _ = self.answers.remove(uid));
        let Some(binding) = self.cluster.bindings.get(key) else { return };
        let (uid, eips) = (binding.uid.clone(), binding.eips.clone());
        match binding.node {
            Some(_) => _ = self.answers.insert(uid, (key.clone(), eips)),
            None => _ = self.answers.remove(&uid),
        }
        self.cluster.obey(&key.name);
    }

    /// The bindings that are not as the announcers have them.
    fn disobeyed(&self) -> impl Iterator<Item = NamespacedName> + '_ {
        let bindings = self.cluster.bindings.values().filter(|binding| {
            let is_held = binding.holder.as_ref().is_some_and(|holder| {
                Some(&holder.node) == binding.node.as_ref() && Some(holder.epoch) == binding.epoch
            });
            let named = binding.node.is_some() && !is_held;
            self.announces && (named || binding.node.is_none() && binding.holder.is_some())
        });
        let gone = self.answers.iter().filter(|(uid, (key, _))| {
            self.cluster.bindings.get(key).is_none_or(|binding| binding.uid != **uid)
        });
        let keys: BTreeSet<NamespacedName> = bindings
            .map(|binding| binding.key.clone())
            .chain(gone.map(|(_, (key, _))| key.clone()))
            .collect();
        keys.into_iter()
    }
}

fn is_of_service(change: &Change) -> bool {
    !matches!(change, Change::Claim(_) | Change::ClaimGone(..))
}
