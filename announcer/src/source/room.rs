//! How much of what all namespaces share is for one of them. Pure.

/// What a namespace may have at most, where each asks for so many: no more than `most`, and where together they would have
/// more than there are, no more than a share that is the same for all. Who asks for less has it all.
pub(crate) fn share(asked: impl Iterator<Item = usize>, most: usize, together: usize) -> usize {
    let mut asked: Vec<usize> = asked.map(|count| count.min(most)).collect();
    asked.sort_unstable();
    let mut rest = together;
    for (at, count) in asked.iter().enumerate() {
        let share = rest / (asked.len() - at);
        if *count > share {
            return share;
        }
        rest -= count;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_little_has_it_and_the_others_have_equal_shares_of_what_is_left() {
        for (asked, expected) in [
            (&[][..], 10),
            (&[7, 10], 10),
            (&[7, 12], 10),
            (&[10, 10, 1], 9),
            (&[1, 2, 10, 10], 8),
            (&[3, 6, 6, 9], 5),
            (&[9; 40], 0),
        ] {
            let share = share(asked.iter().copied(), 10, 20);
            assert_eq!(share, expected, "{asked:?}");
            let given: usize = asked.iter().map(|count| *count.min(&share)).sum();
            assert!(given <= 20, "{asked:?}");
        }
    }
}
