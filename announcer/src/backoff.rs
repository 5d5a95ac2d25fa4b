//! How long to wait before doing again what did not help. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A pause for each thing that is tried again and again, doubling from `first` to `longest`.
#[derive(Debug)]
pub struct Backoff<K> {
    first: Duration,
    longest: Duration,
    tries: BTreeMap<K, Try>,
}

#[derive(Debug)]
struct Try {
    count: u32,
    last: Instant,
    due: Instant,
}

impl<K: Ord> Backoff<K> {
    /// Pauses from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, tries: BTreeMap::new() }
    }

    /// Whether `key` may be tried.
    pub fn is_due(&self, key: &K, now: Instant) -> bool {
        self.tries.get(key).is_none_or(|tried| tried.due <= now)
    }

    /// Notes that `key` was tried and will have to be tried again. After a long quiet time it begins anew.
    pub fn again(&mut self, key: K, now: Instant) {
        let begin = Try { count: 0, last: now, due: now };
        let tried = self.tries.entry(key).or_insert(begin);
        if now.saturating_duration_since(tried.last) > self.longest * 2 {
            tried.count = 0;
        }
        let pause = self.first.saturating_mul(1 << tried.count.min(16)).min(self.longest);
        *tried = Try { count: tried.count + 1, last: now, due: now + pause };
    }

    /// Forgets every key that does not pass.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.tries.retain(|key, _| keep(key));
    }

    /// The next moment after `now` at which something becomes due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.tries.values().map(|tried| tried.due).filter(|due| *due > now).min()
    }
}

/// What is said at most once a minute for each thing.
#[derive(Debug)]
pub struct Seldom<K> {
    said: BTreeMap<K, Instant>,
}

/// How seldom.
const MINUTE: Duration = Duration::from_secs(60);

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self { said: BTreeMap::new() }
    }
}

impl<K: Ord> Seldom<K> {
    /// Whether it may be said of `key` now; it is, then.
    pub fn may(&mut self, key: K, now: Instant) -> bool {
        if self.said.get(&key).is_some_and(|said| now < *said + MINUTE) {
            return false;
        }
        self.said.retain(|_, said| now < *said + MINUTE);
        self.said.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_seldom_is_said_once_a_minute_for_each_thing() {
        let (mut seldom, begin) = (Seldom::default(), Instant::now());
        let at = |second: u64| begin + Duration::from_secs(second);
        let said: Vec<u64> = (0..121).filter(|second| seldom.may("a", at(*second))).collect();
        assert_eq!(said, [0, 60, 120]);
        assert!(seldom.may("b", at(121)) && !seldom.may("a", at(121)));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_quiet_time() {
        let second = Duration::from_secs(1);
        let mut pace = Backoff::new(second, second * 4);
        let mut now = Instant::now();
        assert!(pace.is_due(&"x", now));
        for pause in [1, 2, 4, 4] {
            pace.again("x", now);
            assert_eq!(pace.deadline(now), Some(now + second * pause));
            assert!(!pace.is_due(&"x", now));
            now += second * pause;
            assert!(pace.is_due(&"x", now));
        }
        now += second * 9;
        pace.again("x", now);
        assert_eq!(pace.deadline(now), Some(now + second));
    }
}
