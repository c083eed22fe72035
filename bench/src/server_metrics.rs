//! Reads a server's `/metrics`.

use std::collections::HashMap;

/// All samples of one answer, by name and labels.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics(HashMap<String, f64>);

impl ServerMetrics {
    pub(crate) fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(pairs.collect())
    }

    /// The sum over all labels; 0 if there is no sample.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.0
            .iter()
            .filter(|(key, _)| key.split('{').next() == Some(name))
            .map(|(_, value)| value)
            // An empty sum of floats is -0.
            .fold(0.0, |sum, value| sum + value)
    }

    /// One sample; 0 if there is none. `labelled` as in `name{label="value"}`.
    pub(crate) fn one(&self, labelled: &str) -> f64 {
        self.0.get(labelled).copied().unwrap_or_default()
    }

    /// Sandboxes that were started since the server's start.
    pub(crate) fn started(&self) -> f64 {
        self.sum("hanshu_sandbox_start_seconds_count")
    }

    pub(crate) fn dropped_records(&self) -> f64 {
        self.sum("hanshu_journal_dropped_records_total")
    }

    pub(crate) fn dropped_lines(&self) -> f64 {
        self.sum("hanshu_journal_dropped_lines_total")
    }

    pub(crate) fn invocations(&self) -> f64 {
        self.sum("hanshu_invocations_total")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed_and_other_names_are_not() {
        let text = "# HELP a b\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 7\na_count 1\n";
        let metrics = ServerMetrics::read(text);
        assert_eq!(metrics.sum("a").total_cmp(&5.0), std::cmp::Ordering::Equal);
        assert_eq!(metrics.one("a{x=\"2\"}").total_cmp(&3.0), std::cmp::Ordering::Equal);
    }
}
