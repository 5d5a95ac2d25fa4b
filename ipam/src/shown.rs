//! What somebody wrote, in a message.

/// The first 64 characters, escaped as by `{:?}`. This crate knows no other, and so
/// does not have it from where both programs have it.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    let more = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    text.chars().take(MOST).flat_map(char::escape_debug).chain(more.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_and_on_one_line() {
        assert_eq!(shown("a\nb"), r"a\nb");
        assert_eq!(shown(&"ä".repeat(65)), "ä".repeat(64) + "…");
    }
}
