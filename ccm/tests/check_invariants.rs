//! docs/invariants.md names only files and tests that exist.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

#[test]
fn every_invariant_names_tests_that_exist() -> Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let text = fs::read_to_string(root.join("docs/invariants.md"))?;
    let chapters: Vec<&str> = text.split("\n## ").skip(1).collect();
    ensure!(chapters.len() == 13, "{} invariants", chapters.len());
    for (index, chapter) in chapters.iter().enumerate() {
        ensure!(chapter.starts_with(&format!("{}. ", index + 1)), "{chapter}");
        let tests: Vec<&str> = chapter.lines().filter(|line| line.starts_with("- ")).collect();
        ensure!(!tests.is_empty(), "no test holds {chapter}");
        for line in tests {
            let mut names = quoted(line);
            let file = names.next().context("a line without a file")?;
            let source = fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
            for name in names {
                ensure!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
            }
        }
        for path in quoted(chapter).filter(|name| name.contains('/')) {
            ensure!(root.join(path).exists(), "there is no {path}");
        }
    }
    Ok(())
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
