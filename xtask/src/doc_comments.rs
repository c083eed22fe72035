//! A doc comment says something: it has three words or more, and some that are not its item's name.

use crate::rust_source::{item_name, words};

/// Fewest words of a doc comment.
const WORDS_MIN: usize = 3;

/// Words that add nothing to a name.
const FILLERS: [&str; 12] =
    ["a", "an", "the", "of", "this", "its", "is", "that", "which", "for", "with", "to"];

/// What is wrong with the doc comments of a Rust file.
pub(crate) fn check(path: &str, text: &str) -> Vec<String> {
    doc_comments(text)
        .iter()
        .filter_map(|doc| Some(format!("{path}:{}: {}", doc.line, doc.fault()?)))
        .collect()
}

/// A block of `///` lines, or of `//!` lines.
struct DocComment<'a> {
    /// Number of its first line, counted from 1.
    line: usize,
    text: String,
    /// What it documents; `None` for the file, and where no name is found.
    item: Option<&'a str>,
}

fn doc_comments(text: &str) -> Vec<DocComment<'_>> {
    let mut found: Vec<DocComment<'_>> = Vec::new();
    let mut open: Option<DocComment<'_>> = None;
    let mut of_file = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some((marker, said)) = line.split_at_checked(3)
            && (marker == "///" || marker == "//!")
        {
            of_file = marker == "//!";
            let start = || DocComment { line: number + 1, text: String::new(), item: None };
            let doc = open.get_or_insert_with(start);
            doc.text.push(' ');
            doc.text.push_str(said);
        } else if !line.starts_with("#[")
            && let Some(doc) = open.take()
        {
            let item = if of_file { None } else { item_name(line) };
            found.push(DocComment { item, ..doc });
        }
    }
    found.extend(open);
    found
}

impl DocComment<'_> {
    fn fault(&self) -> Option<String> {
        let text = self.text.trim();
        let said = words(text);
        let name = self.item.map(words).unwrap_or_default();
        if self.text.split_whitespace().count() < WORDS_MIN {
            return Some(format!("a doc comment of fewer than {WORDS_MIN} words: `{text}`"));
        }
        let repeats = |word: &String| {
            FILLERS.contains(&word.as_str())
                || name.iter().any(|part| singular(part) == singular(word))
        };
        let is_repetition = !name.is_empty() && said.iter().all(repeats);
        is_repetition.then(|| format!("a doc comment that only repeats the name: `{text}`"))
    }
}

fn singular(word: &str) -> &str {
    word.strip_suffix('s').unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_are_too_few() {
        let bad = "//! Reads the rows of a queue.\n\n/// Whose.\npub struct Row;\n";
        let fault = "a.rs:3: a doc comment of fewer than 3 words: `Whose.`";
        assert_eq!(check("a.rs", bad), [fault]);
        assert_eq!(check("a.rs", "//! Two words.\n\nuse std::fs;\n").len(), 1);
    }

    #[test]
    fn a_repeated_name_says_nothing() {
        for bad in [
            "/// The name of the function.\n#[serde(default)]\npub function_name: String,",
            "/// This is a run dir.\npub(crate) struct RunDir {",
        ] {
            assert!(check("a.rs", bad)[0].contains("only repeats the name"), "{bad}");
        }
    }

    #[test]
    fn what_says_something_stays() {
        let good = "/// MiB, a multiple of 128.\npub memory_mb: u32,\n\n/// As in\n/// `lines`.\nfn a() {}";
        assert_eq!(check("a.rs", good), [""; 0]);
    }
}
