//! The metric that decides which epoch is the best.

use super::fit_result::Scores;
use super::scoring::is_internal;
use crate::{Error, Result};

/// The mean training loss of the epoch, as a criterion.
const LOSS: &str = "loss";
/// Figures that are better when they are lower.
const LOWER: [&str; 3] = [LOSS, "nll", "ece"];
/// Metrics that cannot be monitored, because neither direction is better.
const NEUTRAL: [&str; 2] = ["threshold", "temperature"];

/// `--monitor`: a figure by its name, or the task's own rank.
#[derive(Debug, Clone, Copy)]
pub struct Monitor(Option<&'static str>);

impl Monitor {
    /// The criterion called `name`; `scores` are those of the untouched start, which have every figure
    /// that the data defines.
    ///
    /// # Errors
    /// There is no such metric; the message lists the valid names.
    pub fn new(name: Option<&str>, scores: &Scores) -> Result<Self> {
        let Some(name) = name else { return Ok(Self(None)) };
        let figures = scores.values.iter().map(|(figure, _)| *figure).chain([LOSS]);
        let figures = figures.filter(|figure| !is_internal(figure) && !NEUTRAL.contains(figure));
        let known: Vec<_> = figures.collect();
        match known.iter().find(|figure| **figure == name) {
            Some(figure) => Ok(Self(Some(figure))),
            None => Err(Error::Config(format!(
                "--monitor {name}: no such figure in this training; use one of {}",
                known.join(", ")
            ))),
        }
    }

    /// The scores with the rank of the criterion. The untouched start has no loss: then, and where a
    /// figure is missing, any other epoch is better.
    pub fn ranked(self, mut scores: Scores, loss: Option<f64>) -> Scores {
        let Some(name) = self.0.filter(|_| !scores.has_diverged()) else { return scores };
        let figure = || scores.values.iter().find(|(other, _)| *other == name).map(|found| found.1);
        let value = if name == LOSS { loss } else { figure() };
        let sign = if self.is_lower_better() { -1.0 } else { 1.0 };
        let rank = value.filter(|value| value.is_finite()).map(|value| sign * value);
        scores.rank = vec![rank.unwrap_or(f64::NEG_INFINITY)];
        scores.criterion = name;
        scores
    }

    /// Whether lower values of the criterion are better; its rank is then their negative.
    pub fn is_lower_better(self) -> bool {
        self.0.is_some_and(|name| LOWER.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(auc: f64, nll: f64) -> Scores {
        Scores {
            values: vec![("auc", auc), ("nll", nll), ("threshold", 1.0), ("same_bias", 2.0)],
            rank: vec![0.5],
            criterion: "mean",
            headline: String::new(),
        }
    }

    #[test]
    fn the_named_figure_decides() {
        let (first, second) = (scores(0.8, 0.3), scores(0.9, 0.4));
        for (name, second_is_better) in [("auc", true), ("nll", false), ("loss", false)] {
            let monitor = Monitor::new(Some(name), &first).unwrap();
            let a = monitor.ranked(first.clone(), Some(1.0));
            let b = monitor.ranked(second.clone(), Some(2.0));
            assert_eq!(b.beats(&a), second_is_better, "{name}");
            assert_eq!(a.beats(&b), !second_is_better, "{name}");
            assert_eq!(a.criterion, name);
        }
        let monitor = Monitor::new(Some("loss"), &first).unwrap();
        let start = monitor.ranked(first.clone(), None);
        assert!(monitor.ranked(second, Some(9.0)).beats(&start) && !start.has_diverged());
        let own = Monitor::new(None, &first).unwrap().ranked(first.clone(), Some(1.0));
        assert_eq!(own, first);
        assert!(monitor.ranked(Scores::diverged(), Some(1.0)).has_diverged());
    }

    #[test]
    fn an_unknown_figure_lists_those_there_are() {
        for name in ["acc", "threshold", "same_bias"] {
            let error = Monitor::new(Some(name), &scores(0.8, 0.3)).unwrap_err().to_string();
            assert!(error.contains(name) && error.ends_with("auc, nll, loss"), "{error}");
        }
    }
}
