//! The path of an HTTP trigger: literal segments and `{name}` ones.

use std::collections::HashSet;

use crate::check::TriggerError;

/// A path such as `/hello/{name}`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    pub(crate) segments: Vec<Segment>,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Itself, percent-decoded.
    Literal(Box<str>),
    /// Any text but none.
    Name(Box<str>),
}

const PATH_BYTES_MAX: usize = 1_024;
const SEGMENTS_MAX: usize = 32;

impl Pattern {
    /// Reads a path.
    pub(crate) fn parse(path: &str) -> Result<Self, TriggerError> {
        let error = |rule| TriggerError::field("path", path, rule);
        if PATH_BYTES_MAX < path.len() {
            return Err(error("at most 1024 bytes"));
        }
        let Some(inner) = path.strip_prefix('/') else {
            return Err(error("a path that starts with `/`, such as `/hello/{name}`"));
        };
        let mut names = HashSet::new();
        let mut segments = Vec::new();
        for text in inner.split('/') {
            let segment = segment(text).ok_or_else(|| {
                error("segments of letters, digits and `-._~!$&'()*+,;=:@`, or `{name}`")
            })?;
            if let Segment::Name(name) = &segment
                && !names.insert(name.clone())
            {
                return Err(error("a different name for each `{name}`"));
            }
            segments.push(segment);
        }
        if SEGMENTS_MAX < segments.len() {
            return Err(error("at most 32 segments"));
        }
        let empty = |segment: &Segment| *segment == Segment::Literal("".into());
        if segments.iter().rev().skip(1).any(empty) {
            return Err(error("no empty segments (`//`)"));
        }
        Ok(Self { text: path.into(), segments })
    }

    /// Bytes of literal segments: the longest wins.
    pub(crate) fn literal_bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text.len(),
                Segment::Name(_) => 0,
            })
            .sum()
    }

    /// Whether decoded segments fit: what the tree of all routes must agree with.
    #[cfg(test)]
    pub(crate) fn fits(&self, path: &[String]) -> bool {
        self.segments.len() == path.len()
            && self.segments.iter().zip(path).all(|(segment, text)| match segment {
                Segment::Literal(literal) => **literal == **text,
                Segment::Name(_) => !text.is_empty(),
            })
    }

    /// The values of the names in segments that fit.
    pub(crate) fn values(&self, path: &[String]) -> Vec<(Box<str>, String)> {
        let pairs = self.segments.iter().zip(path);
        pairs
            .filter_map(|(segment, text)| match segment {
                Segment::Literal(_) => None,
                Segment::Name(name) => Some((name.clone(), text.clone())),
            })
            .collect()
    }
}

fn segment(text: &str) -> Option<Segment> {
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let fits = name.chars().all(word) && name.starts_with(|c: char| !c.is_ascii_digit());
        return fits.then(|| Segment::Name(name.into()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let fits = text.bytes().all(plain) && text != "." && text != "..";
    fits.then(|| Segment::Literal(text.into()))
}
