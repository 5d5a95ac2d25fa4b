//! Owns whether work grows as that which there is of it, and no faster: what a tenant can make ten thousand of must not take a
//! hundred million steps.

use std::time::Duration;

use crate::work::worked;

/// Ten times as many may take so many times as long: trees grow, and memory that no cache holds is slow. What is worse than
/// linear takes a hundred times as long.
const TIMES: u32 = 25;

/// What is quicker is not told from noise.
const LEAST: Duration = Duration::from_millis(2);

/// Does the work for `few`, and for ten times as many.
///
/// # Panics
/// Where that takes a processor more than some ten times as long.
pub fn in_proportion(few: usize, work: impl FnMut(usize)) {
    within(few, TIMES, work);
}

/// The same where each of them says something of all others, as those that share an address: some hundred times as long.
///
/// # Panics
/// Where it takes longer.
pub fn in_square(few: usize, work: impl FnMut(usize)) {
    within(few, 8 * TIMES, work);
}

fn within(few: usize, times: u32, mut work: impl FnMut(usize)) {
    let mut took = |count| {
        let begun = worked();
        work(count);
        worked().saturating_sub(begun)
    };
    let mut told = String::new();
    // Whoever else is at work on the machine makes one of them slow; what is worse than linear is so each time.
    for _ in 0..3 {
        let one = [took(few), took(few)].into_iter().max().unwrap_or_default().max(LEAST);
        let ten = took(10 * few);
        told = format!("{few} take {one:?} of a processor, and {} {ten:?}", 10 * few);
        println!("{told}");
        if ten <= one * times {
            return;
        }
    }
    panic!("{told}");
}
