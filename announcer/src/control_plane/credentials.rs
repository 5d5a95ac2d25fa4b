//! Which kubeconfig the API server of this node is asked with. Pure.
//!
//! Since 1.29 kubeadm's `admin.conf` has no rights before `kubeadm init` gives it some, by way of the very address that waits
//! for them (kube-vip#684). On the first node there is `super-admin.conf` beside it, which has rights from the start. It is
//! used while the other is refused, and no longer: it is never taken for want of an answer.

use std::time::{Duration, Instant};

/// How soon it is asked again what the first kubeconfig may do, while it may not: from the first pause to the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);

/// How often while it may: rights may be taken, and certificates run out.
const LOOK: Duration = Duration::from_secs(300);

/// Which of two kubeconfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The one that is named.
    Own,
    /// The one of `kubeadm init`, beside it.
    Initial,
}

/// What came of asking what the first one may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may do what is needed.
    Granted,
    /// It may not, or is not known, and why.
    Refused(String),
    /// There is none, or no such file, and why.
    Nothing(String),
}

/// Which kubeconfig is asked with, and when that is looked at again.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    using: Whose,
    due: Instant,
    /// How often in a row it was not granted.
    tries: u32,
}

impl Credentials {
    /// The one that is named, and it is to be asked at once what that may do.
    pub(super) fn new(now: Instant) -> Self {
        Self { using: Whose::Own, due: now, tries: 0 }
    }

    /// Which one is asked with.
    pub(super) fn using(&self) -> Whose {
        self.using
    }

    /// When it is to be asked next what the first one may do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Takes in that a file has changed: what was said of it counts no longer.
    pub(super) fn changed(&mut self, now: Instant) {
        (self.tries, self.due) = (0, now);
    }

    /// Takes in what came of asking. `has_initial` says whether there is another one.
    pub(super) fn answered(&mut self, answer: &Answer, has_initial: bool, now: Instant) {
        self.using = match answer {
            Answer::Granted => Whose::Own,
            Answer::Refused(_) if has_initial => Whose::Initial,
            Answer::Refused(_) => Whose::Own,
            // What was used goes on to be.
            Answer::Nothing(_) if has_initial => self.using,
            Answer::Nothing(_) => Whose::Own,
        };
        self.due = match answer {
            Answer::Granted => {
                self.tries = 0;
                now + LOOK
            }
            Answer::Refused(_) | Answer::Nothing(_) => {
                let pause = FIRST.saturating_mul(1 << self.tries.min(8)).min(LONGEST);
                self.tries = self.tries.saturating_add(1);
                now + pause
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Answer {
        Answer::Refused("403".to_owned())
    }

    fn nothing() -> Answer {
        Answer::Nothing("no answer".to_owned())
    }

    /// What is used after these answers, each given when it was due, beside another kubeconfig or not.
    fn used(answers: &[Answer], has_initial: bool) -> Vec<Whose> {
        let mut credentials = Credentials::new(Instant::now());
        let answered = |answer: &Answer| {
            let due = credentials.due();
            credentials.answered(answer, has_initial, due);
            credentials.using()
        };
        answers.iter().map(answered).collect()
    }

    #[test]
    fn who_is_refused_goes_by_the_one_of_the_beginning_and_back_when_it_is_granted() {
        let answers = [nothing(), refused(), nothing(), refused(), Answer::Granted, nothing()];
        let [own, initial] = [Whose::Own, Whose::Initial];
        assert_eq!(used(&answers, true), [own, initial, initial, initial, own, own]);
    }

    #[test]
    fn where_there_is_no_other_what_is_refused_is_waited_for() {
        assert_eq!(used(&[refused(), nothing(), refused()], false), [Whose::Own; 3]);
    }

    #[test]
    fn what_is_gone_is_not_asked_with_any_more() {
        let mut credentials = Credentials::new(Instant::now());
        credentials.answered(&refused(), true, Instant::now());
        credentials.answered(&nothing(), false, Instant::now());
        assert_eq!(credentials.using(), Whose::Own);
    }

    #[test]
    fn what_is_not_granted_is_asked_for_again_soon_and_then_more_seldom() {
        let start = Instant::now();
        let mut credentials = Credentials::new(start);
        assert_eq!(credentials.due(), start);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let now = credentials.due();
            credentials.answered(&refused(), true, now);
            pauses.push((credentials.due() - now).as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
        let now = credentials.due();
        credentials.changed(now);
        credentials.answered(&refused(), true, now);
        assert_eq!(credentials.due() - now, FIRST, "kubeadm has written it anew");
        credentials.answered(&Answer::Granted, true, now);
        assert_eq!(credentials.due() - now, LOOK);
    }
}
