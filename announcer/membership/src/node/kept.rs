//! Owns that no view is stood in before it is on this node's disk, where views are kept.

use super::Node;
use crate::event::Output;
use crate::view::View;

impl Node {
    /// Whether a view has to be kept before this node stands in it, which is asked for once.
    pub(super) fn is_to_be_kept(&mut self, view: &View) -> bool {
        if self.kept.asks(view) {
            self.out.push(Output::Keep(view.clone()));
        }
        !self.kept.has(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Input, Keyring, Moment, NodeId, Parameters, Voters};

    fn clock(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn node(name: &str, seed: u64) -> Node {
        let keyring = Keyring::new("", [&[7; 32][..]]).unwrap();
        let me = NodeId::of(name);
        Node::new(me, Parameters::default(), keyring, seed, clock(0)).unwrap()
    }

    fn view(epoch: u64, names: &[&str]) -> View {
        View::new(epoch, Voters::new(names.iter().map(|name| NodeId::of(name))).unwrap(), vec![])
            .unwrap()
    }

    fn kept(outputs: &[Output]) -> Vec<u64> {
        let kept = outputs.iter().filter_map(|output| match output {
            Output::Keep(view) => Some(view.epoch()),
            _ => None,
        });
        kept.collect()
    }

    fn sends(outputs: &[Output]) -> impl Iterator<Item = &[u8]> {
        outputs.iter().filter_map(|output| match output {
            Output::Send { datagram, .. } => Some(&**datagram),
            _ => None,
        })
    }

    #[test]
    fn nothing_is_said_in_a_view_before_it_is_kept_and_that_is_asked_for_once() {
        let mut a = node("a", 1).keeping();
        let pair = view(3, &["a", "b"]);
        let outputs = a.handle(clock(1), Input::View(pair.clone()));
        assert_eq!(kept(&outputs), [3]);
        assert_eq!(sends(&outputs).count(), 0);
        assert!(kept(&a.handle(clock(2), Input::View(pair.clone()))).is_empty());
        assert!(a.view().is_none());
        let none = a.handle(clock(3), Input::NoView);
        assert!(!none.iter().any(|output| matches!(output, Output::ProposeView { .. })));
        let outputs = a.handle(clock(4), Input::Kept(pair));
        assert_eq!((a.view().unwrap().0.epoch(), sends(&outputs).count()), (3, 1));
    }

    #[test]
    fn a_view_that_another_node_stands_in_is_kept_before_it_is_adopted() {
        let (mut a, mut b) = (node("a", 1).keeping(), node("b", 2));
        let (older, newer) = (view(3, &["a", "b"]), view(4, &["a", "b", "c"]));
        a.handle(clock(1), Input::Kept(older.clone()));
        b.handle(clock(1), Input::View(newer.clone()));
        let (mut asked, mut now) = (Vec::new(), 1);
        while asked.is_empty() {
            now += 30;
            assert!(now < 1_000, "it hears of it");
            for _ in 0..4 {
                let said: Vec<_> = b.poll(clock(now));
                for datagram in sends(&said) {
                    let outputs = a.handle(clock(now), Input::Datagram(datagram));
                    asked.extend(kept(&outputs));
                    sends(&outputs).for_each(|answer| {
                        let _ = b.handle(clock(now), Input::Datagram(answer));
                    });
                }
                let said: Vec<_> = a.poll(clock(now));
                for datagram in sends(&said) {
                    let outputs = b.handle(clock(now), Input::Datagram(datagram));
                    for answer in sends(&outputs) {
                        asked.extend(kept(&a.handle(clock(now), Input::Datagram(answer))));
                    }
                }
            }
        }
        assert_eq!(asked, [4]);
        assert_eq!(a.view().unwrap().0, &older);
        a.handle(clock(now), Input::Kept(newer.clone()));
        assert_eq!(a.view().unwrap().0, &newer);
        // The next run goes on from there, and hears of nothing older.
        let mut next = node("a", 3).keeping();
        next.handle(clock(now), Input::Kept(newer.clone()));
        assert!(kept(&next.handle(clock(now), Input::View(older))).is_empty());
        assert_eq!(next.view().unwrap().0, &newer);
    }

    #[test]
    fn who_keeps_nothing_is_asked_for_nothing() {
        let mut a = node("a", 1);
        assert!(kept(&a.handle(clock(1), Input::View(view(1, &["a"])))).is_empty());
        a.handle(clock(2), Input::Kept(view(2, &["b"])));
        assert_eq!(a.view().unwrap().0.epoch(), 1);
    }
}
