//! The rows of the table, each a scenario of its own.

mod sync;

use std::pin::Pin;

use crate::report::Line;
use crate::run::Run;

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Vec<Line>>> + 'a>>;

/// One scenario: what `--list` shows, and how it is run.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: for<'a> fn(&'a Run) -> Running<'a>,
}

macro_rules! row {
    ($name:literal, $about:literal, $run:expr) => {
        Row { name: $name, about: $about, run: |run| Box::pin($run($name, run)) }
    };
}

/// All rows, in the order in which they are run.
#[rustfmt::skip]
pub(crate) fn all() -> Vec<Row> {
    use crate::ceiling::Language::{Node, Python};
    vec![
        row!("sync_python_1", "warm native calls, Python in Docker, 100 B, 1 connection", |row, run| sync::run(row, run, Python, 1)),
        row!("sync_python_16", "the same, 16 connections", |row, run| sync::run(row, run, Python, 16)),
        row!("sync_python_64", "the same, 64 connections", |row, run| sync::run(row, run, Python, 64)),
        row!("sync_node_1", "warm native calls, Node in Docker, 100 B, 1 connection", |row, run| sync::run(row, run, Node, 1)),
        row!("sync_node_16", "the same, 16 connections", |row, run| sync::run(row, run, Node, 16)),
        row!("sync_node_64", "the same, 64 connections", |row, run| sync::run(row, run, Node, 64)),
    ]
}

/// Whether all words of `wanted` are words of `name`: `sync_1` is every sync row of 1 connection.
pub(crate) fn is_meant(name: &str, wanted: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    wanted.split('_').all(|word| words.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_words_of_a_name() {
        assert!(is_meant("sync_python_1", "sync_1"));
        assert!(is_meant("sync_python_1", "sync_python_1"));
        assert!(!is_meant("sync_python_16", "sync_1"));
        assert!(!is_meant("overload", "over"));
    }

    #[test]
    fn rows_have_names_of_their_own() {
        let mut names: Vec<_> = all().iter().map(|row| row.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
