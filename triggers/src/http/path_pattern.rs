//! The path of an HTTP trigger: literal segments and `{name}` segments.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::trigger_error::TriggerError;

/// A checked path such as `/hello/{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    pub(crate) text: Box<str>,
    pub(crate) segments: Vec<PathSegment>,
}

/// The part of a path between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathSegment {
    /// Matches this text, percent-decoded.
    Literal(Box<str>),
    /// Matches any text that is not empty.
    Name(Box<str>),
}

const PATH_BYTES_MAX: usize = 1_024;
const SEGMENTS_MAX: usize = 32;

/// Which of several patterns that fit a path wins, the smallest first: the most literal bytes,
/// then literals before names, from the left.
pub(crate) type PatternRank = (Reverse<usize>, Vec<bool>);

impl PathPattern {
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
            if let PathSegment::Name(name) = &segment
                && !names.insert(name.clone())
            {
                return Err(error("a different name for each `{name}`"));
            }
            segments.push(segment);
        }
        if SEGMENTS_MAX < segments.len() {
            return Err(error("at most 32 segments"));
        }
        let empty = |segment: &PathSegment| *segment == PathSegment::Literal("".into());
        if segments.iter().rev().skip(1).any(empty) {
            return Err(error("no empty segments (`//`)"));
        }
        Ok(Self { text: path.into(), segments })
    }

    pub(crate) fn rank(&self) -> PatternRank {
        let literal_bytes = self.segments.iter().map(|segment| match segment {
            PathSegment::Literal(text) => text.len(),
            PathSegment::Name(_) => 0,
        });
        let names = self.segments.iter().map(|segment| matches!(segment, PathSegment::Name(_)));
        (Reverse(literal_bytes.sum()), names.collect())
    }

    /// Whether decoded segments fit. The reference for tests of the path tree.
    #[cfg(test)]
    pub(crate) fn fits(&self, path: &[String]) -> bool {
        self.segments.len() == path.len()
            && self.segments.iter().zip(path).all(|(segment, text)| match segment {
                PathSegment::Literal(literal) => **literal == **text,
                PathSegment::Name(_) => !text.is_empty(),
            })
    }

    /// The values of the names, in decoded segments that fit.
    pub(crate) fn values(&self, path: &[String]) -> Vec<(Box<str>, String)> {
        let pairs = self.segments.iter().zip(path);
        pairs
            .filter_map(|(segment, text)| match segment {
                PathSegment::Literal(_) => None,
                PathSegment::Name(name) => Some((name.clone(), text.clone())),
            })
            .collect()
    }
}

fn segment(text: &str) -> Option<PathSegment> {
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let fits = name.chars().all(word) && name.starts_with(|c: char| !c.is_ascii_digit());
        return fits.then(|| PathSegment::Name(name.into()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let fits = text.bytes().all(plain) && text != "." && text != "..";
    fits.then(|| PathSegment::Literal(text.into()))
}
