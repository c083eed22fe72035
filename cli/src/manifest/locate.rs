//! Errors with a file, a line and the line's text: what the reader finds, and what the server says
//! of a value.

use std::ops::Range;
use std::path::Path;

use hanshu_api::wire::ProblemBody;
use toml::de::{DeTable, DeValue};

use crate::error::Error;

/// A text with the path it was read from.
pub(super) struct ManifestSource<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> ManifestSource<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// What is wrong at a place.
    pub(super) fn at(&self, span: Range<usize>, what: &str) -> Error {
        Error::Usage(self.format_at(span, what))
    }

    fn format_at(&self, span: Range<usize>, what: &str) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let number = before.matches('\n').count() + 1;
        let line = self.text.lines().nth(number - 1).unwrap_or_default();
        format!("{}:{number}: {what}\n  {}", self.path.display(), line.trim())
    }

    /// The problem that the server has with a value of `function`, in the words of the file and
    /// with its line, where the value stands in it.
    pub(super) fn problem(&self, function: &str, problem: ProblemBody) -> ProblemBody {
        let Some(field) = problem.field.as_deref() else { return problem };
        let path = snake_case(field);
        let Some(span) = self.place(function, &path) else { return problem };
        let key = path.rsplit('.').next().unwrap_or(&path);
        let theirs = field.rsplit('.').next().unwrap_or(field);
        let words = problem.detail.replace(&format!("`{theirs}`"), &format!("`{key}`"));
        let words = words.replace(&format!("`{field}`"), &format!("`{path}`"));
        let hint = format!("correct it in {} and deploy again", self.path.display());
        ProblemBody { detail: self.format_at(span, &words), hint, ..problem }
    }

    /// Where `memory_mb`, `async.max_age_s` or `triggers[0].cron` of a function is; else where
    /// what it would be in is.
    fn place(&self, function: &str, path: &str) -> Option<Range<usize>> {
        let file = DeTable::parse(self.text).ok()?;
        let functions = file.get_ref().get("functions")?.get_ref().as_table()?;
        let (name, entry) = functions.get_key_value(function)?;
        let (mut span, mut value) = (name.span(), entry);
        for part in path.split('.') {
            let (key, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
                Some((key, index)) => (key, index.parse::<usize>().ok()),
                None => (part, None),
            };
            let Some((key, found)) = value.get_ref().as_table().and_then(|t| t.get_key_value(key))
            else {
                break;
            };
            (span, value) = (key.span(), found);
            if let (Some(index), DeValue::Array(items)) = (index, found.get_ref())
                && let Some(item) = items.get(index)
            {
                value = item;
                // The table's head can be far from what it holds: the first key is nearer.
                let keys = item.get_ref().as_table().into_iter().flatten();
                span =
                    keys.map(|(key, _)| key.span()).min_by_key(|span| span.start).unwrap_or(span);
            }
        }
        Some(span)
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

/// `initTimeoutS` as the file writes it.
fn snake_case(field: &str) -> String {
    let mut out = String::with_capacity(field.len() + 4);
    for letter in field.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
