//! Measured figures, and their rendering as a table.

use std::fmt::Write as _;

use serde::Serialize;

/// What a figure must reach; `Ratio…` means ours ÷ ceiling, the others ours in its unit.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PromiseTarget {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
    /// Reported without a target.
    Informational,
}

/// One figure of a row, measured once per repetition.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MeasuredFigure {
    pub(crate) row: &'static str,
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Vec<f64>,
    /// Measured alternately with `ours`; empty if the target needs no ceiling.
    pub(crate) ceiling: Vec<f64>,
    pub(crate) target: PromiseTarget,
    /// Terms of a formula, counts, and other remarks.
    pub(crate) note: String,
    pub(crate) error: Option<String>,
}

impl MeasuredFigure {
    pub(crate) fn new(row: &'static str, figure: impl Into<String>, unit: &'static str) -> Self {
        Self {
            row,
            figure: figure.into(),
            unit,
            ours: Vec::new(),
            ceiling: Vec::new(),
            target: PromiseTarget::Informational,
            note: String::new(),
            error: None,
        }
    }

    pub(crate) fn failed(row: &'static str, error: &anyhow::Error) -> Self {
        Self { error: Some(format!("{error:#}")), ..Self::new(row, "not measured", "") }
    }

    pub(crate) fn ours(mut self, ours: impl Into<Vec<f64>>) -> Self {
        self.ours = ours.into();
        self
    }

    pub(crate) fn ceiling(mut self, ceiling: impl Into<Vec<f64>>) -> Self {
        self.ceiling = ceiling.into();
        self
    }

    pub(crate) fn target(mut self, target: PromiseTarget) -> Self {
        self.target = target;
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.ceiling).map(|(ours, ceiling)| ours / ceiling).collect()
    }

    /// Whether the median reaches the target; `None` if there is no target.
    pub(crate) fn reached(&self) -> Option<bool> {
        let ratio = median(&self.ratios());
        let ours = median(&self.ours);
        match self.target {
            PromiseTarget::RatioAtLeast(least) => Some(ratio.is_some_and(|ratio| least <= ratio)),
            PromiseTarget::RatioAtMost(most) => Some(ratio.is_some_and(|ratio| ratio <= most)),
            PromiseTarget::AtLeast(least) => Some(ours.is_some_and(|ours| least <= ours)),
            PromiseTarget::AtMost(most) => Some(ours.is_some_and(|ours| ours <= most)),
            PromiseTarget::Informational => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match (&self.error, self.reached()) {
            (Some(_), _) => "ERROR",
            (None, Some(true)) => "yes",
            (None, Some(false)) => "no",
            (None, None) => "-",
        }
    }
}

/// The upper median; `None` if there are no values or one is not finite.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 0.5)
}

/// The smallest value that at least `part` of the values do not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of a small count"
)]
pub(crate) fn percentile(values: &[f64], part: f64) -> Option<f64> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().checked_sub(1)?);
    sorted.get(index).copied()
}

/// Three significant digits.
fn short(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 100.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn spread(line: &MeasuredFigure) -> String {
    let ratios = line.ratios();
    let values = if ratios.is_empty() { &line.ours } else { &ratios };
    if values.len() < 2 {
        return "-".into();
    }
    let least = values.iter().copied().reduce(f64::min);
    let most = values.iter().copied().reduce(f64::max);
    format!("{}..{}", short(least), short(most))
}

fn target(line: &MeasuredFigure) -> String {
    match line.target {
        PromiseTarget::RatioAtLeast(least) => format!("ratio >= {least}"),
        PromiseTarget::RatioAtMost(most) => format!("ratio <= {most}"),
        PromiseTarget::AtLeast(least) => format!(">= {least} {}", line.unit),
        PromiseTarget::AtMost(most) => format!("<= {most} {}", line.unit),
        PromiseTarget::Informational => "-".into(),
    }
}

const HEADS: [&str; 8] =
    ["row", "figure", "ours", "ceiling", "ratio", "spread", "target", "reached"];

/// The table, followed by notes and errors.
pub(crate) fn table(lines: &[MeasuredFigure]) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(lines.iter().map(cells));
    let widths: [usize; 8] = std::array::from_fn(|column| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let right = (2..=4).contains(&index);
            let gap = if index == 0 { "" } else { "  " };
            let _ = if right {
                write!(text, "{gap}{cell:>width$}")
            } else {
                write!(text, "{gap}{cell:<width$}")
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for line in lines {
        if let Some(error) = &line.error {
            let _ = writeln!(text, "ERROR {}: {error}", line.row);
        } else if !line.note.is_empty() {
            let _ = writeln!(text, "note  {} {}: {}", line.row, line.figure, line.note);
        }
    }
    text
}

/// One line of progress.
pub(crate) fn brief(line: &MeasuredFigure) -> String {
    let [_, figure, ours, ceiling, ratio, spread, target, verdict] = cells(line);
    format!("{figure}: {ours}, ceiling {ceiling}, ratio {ratio} ({spread}), {target}: {verdict}")
}

/// The cells of the figure's row in the table.
pub(crate) fn cells(line: &MeasuredFigure) -> [String; 8] {
    let unit = |value: String| {
        if value == "-" || line.unit.is_empty() { value } else { format!("{value} {}", line.unit) }
    };
    [
        line.row.into(),
        line.figure.clone(),
        unit(short(median(&line.ours))),
        unit(short(median(&line.ceiling))),
        short(median(&line.ratios())),
        spread(line),
        target(line),
        line.verdict().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_those_of_each_repetition() {
        let line = MeasuredFigure::new("a", "b", "")
            .ours([10.0, 20.0, 60.0])
            .ceiling([20.0, 100.0, 60.0])
            .target(PromiseTarget::RatioAtLeast(0.5));
        assert_eq!(median(&line.ratios()), Some(0.5));
        assert_eq!(line.reached(), Some(true));
    }

    #[test]
    fn what_was_not_measured_is_never_reached() {
        for target in [
            PromiseTarget::RatioAtLeast(0.1),
            PromiseTarget::RatioAtMost(9.0),
            PromiseTarget::AtMost(9.0),
        ] {
            let line = MeasuredFigure::new("a", "b", "").target(target);
            assert_eq!(line.reached(), Some(false), "{target:?}");
            let line = line.ours([f64::NAN]).ceiling([1.0]);
            assert_eq!(line.reached(), Some(false), "{target:?}");
        }
        let failed = MeasuredFigure::failed("a", &anyhow::anyhow!("gone"));
        assert_eq!(failed.verdict(), "ERROR");
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), Some(100.0));
        assert_eq!(percentile(&values, 0.5), Some(51.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
