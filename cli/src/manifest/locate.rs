//! Errors with a file, a line and the line's text.

use std::ops::Range;
use std::path::Path;

use crate::error::Error;

/// A text with the path it was read from.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// What is wrong at a place.
    pub(super) fn at(&self, span: Range<usize>, what: &str) -> Error {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let number = before.matches('\n').count() + 1;
        let line = self.text.lines().nth(number - 1).unwrap_or_default();
        Error::Usage(format!("{}:{number}: {what}\n  {}", self.path.display(), line.trim()))
    }

    /// What the TOML reader found wrong.
    pub(super) fn toml(&self, error: &toml::de::Error) -> Error {
        match error.span() {
            Some(span) => self.at(span, error.message()),
            None => self.whole(error.message()),
        }
    }

    /// What is wrong with all of it.
    pub(super) fn whole(&self, what: &str) -> Error {
        Error::file(self.path, what)
    }
}
