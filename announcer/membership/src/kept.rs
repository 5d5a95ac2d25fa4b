//! Owns which views are on this node's disk, and which were asked for.
//!
//! Guarantee: a run that begins with what an earlier one kept stands in no older view than that one ever said.

use crate::view::View;

/// Up to which epoch views are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Kept {
    /// Nothing is: each run begins with a read that cannot be stale.
    #[default]
    Nothing,
    /// Up to this epoch, and up to this one it was asked for.
    UpTo { done: u64, asked: u64 },
}

impl Kept {
    /// Nothing yet.
    pub(crate) fn begun() -> Self {
        Self::UpTo { done: 0, asked: 0 }
    }

    /// Takes in that a view is kept; false if nothing is.
    pub(crate) fn done(&mut self, view: &View) -> bool {
        let Self::UpTo { done, asked } = self else { return false };
        *done = view.epoch().max(*done);
        *asked = (*done).max(*asked);
        true
    }

    /// Whether a view need not be kept any more.
    pub(crate) fn has(&self, view: &View) -> bool {
        match self {
            Self::Nothing => true,
            Self::UpTo { done, .. } => view.epoch() <= *done,
        }
    }

    /// Whether a view is to be asked for now.
    pub(crate) fn asks(&mut self, view: &View) -> bool {
        let Self::UpTo { asked, .. } = self else { return false };
        let is_news = view.epoch() > *asked;
        *asked = view.epoch().max(*asked);
        is_news
    }

    /// Whether a view was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self, Self::UpTo { asked, .. } if *asked > 0)
    }
}
