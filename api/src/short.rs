//! What somebody wrote, in a message: as much of it as helps, whoever wrote how much.

/// The most characters of anything that a user wrote.
const MOST: usize = 64;

/// The first 64 characters of a text, and a mark where there are more.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_a_short_one_stays() {
        assert_eq!(short(&"ä".repeat(MOST)), "ä".repeat(MOST));
        assert_eq!(short(&"ä".repeat(1 << 20)), "ä".repeat(MOST) + "…");
    }
}
