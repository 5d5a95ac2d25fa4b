//! A controller, and what it becomes by what happens to it.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use berth_index::Index;
use berth_index::write::{Outcome, Write};

use crate::cluster::Logged;
use crate::shape::{self, Parts};

/// One that believes it leads.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    pub(crate) index: Index,
    /// How much of the log its watch has shown, of Services and of claims.
    pub(crate) services: usize,
    pub(crate) claims: usize,
    pub(crate) under_way: Vec<Write>,
    shape: OnceCell<Parts>,
    next: Successors,
}

impl Controller {
    /// One whose watch has shown so much.
    pub(crate) fn new(index: Index, seen: usize) -> Self {
        let (under_way, shape, next) = Default::default();
        Self { index, services: seen, claims: seen, under_way, shape, next }
    }

    /// What can be told of it.
    pub(crate) fn shape(&self) -> &Parts {
        self.shape.get_or_init(|| shape::of(&(&self.index, &self.under_way)))
    }

    /// One that is about to change.
    pub(crate) fn edit(shared: &mut Rc<Self>) -> &mut Self {
        let controller = Rc::make_mut(shared);
        controller.shape.take();
        controller.next = Successors::default();
        controller
    }

    /// What becomes of it when it decides; nothing, where it has nothing to write.
    pub(crate) fn decided(&self, now: Duration) -> Option<&Rc<Self>> {
        let decide = || {
            let mut next = self.clone();
            next.shape.take();
            let writes = next.index.poll(now, 32);
            next.index.take_reports();
            next.index.take_latencies();
            next.under_way.extend(writes.iter().cloned());
            (!writes.is_empty()).then(|| Rc::new(next))
        };
        self.next.decided.get_or_init(decide).as_ref()
    }

    /// What it becomes by this: what it became by the same before, or by `how`.
    pub(crate) fn become_by(
        before: &Rc<Self>,
        cause: Cause,
        how: impl FnOnce(&mut Self),
    ) -> Rc<Self> {
        let mut others = before.next.others.borrow_mut();
        let known = others.iter().find(|(known, _)| *known == cause);
        if let Some(next) = known.and_then(|(_, next)| next.upgrade()) {
            return next;
        }
        let mut next = before.clone();
        how(Self::edit(&mut next));
        others.retain(|(_, next)| next.strong_count() > 0);
        others.push((cause, Rc::downgrade(&next)));
        next
    }
}

/// What one becomes by what happens to it, found once: most worlds are led to in many ways. A clone has to find its own.
#[derive(Debug, Default)]
struct Successors {
    decided: OnceCell<Option<Rc<Controller>>>,
    others: RefCell<Vec<(Cause, Weak<Controller>)>>,
}

impl Clone for Successors {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// By what a controller changes.
#[derive(Debug)]
pub(crate) enum Cause {
    /// Its watch shows Services, or claims, of a log of this length that ends with these.
    Shown { services: bool, length: usize, news: Vec<Logged> },
    /// It hears what became of a write.
    Settled { write: usize, outcome: Outcome },
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Shown { services, length, news },
                Self::Shown { services: its, length: long, news: seen },
            ) => {
                let same = |(one, other): (&Logged, &Logged)| Arc::ptr_eq(&one.0, &other.0);
                (services, length) == (its, long) && news.iter().zip(seen).all(same)
            }
            (Self::Settled { write, outcome }, Self::Settled { write: its, outcome: became }) => {
                (write, outcome) == (its, became)
            }
            _ => false,
        }
    }
}
