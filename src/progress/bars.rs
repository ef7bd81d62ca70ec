//! Live bars on a terminal.

use std::fmt;
use std::time::Duration;

pub use indicatif::{MultiProgress, ProgressBar};
use indicatif::{ProgressDrawTarget, ProgressState, ProgressStyle};

use super::time_left::{Whole, printed};

/// How often a live bar is redrawn while nothing advances, so that its clock goes on.
const TICK: Duration = Duration::from_millis(500);

/// How a live bar looks without and with a known total.
const TEMPLATES: [&str; 2] = [
    "{prefix} {spinner} {pos} {unit}, {rate}  {wide_msg}",
    "{prefix} [{bar:24}] {pos}/{len} {unit}, {rate}, {left} left  {wide_msg}",
];

pub fn live_bars() -> Option<MultiProgress> {
    Some(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
}

pub fn live_bar(
    bars: &MultiProgress,
    title: &str,
    total: u64,
    unit: &str,
    whole: Whole,
) -> ProgressBar {
    let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
    let bar = bars.add(bar.with_style(style(total, unit, whole)).with_prefix(title.to_owned()));
    bar.enable_steady_tick(TICK);
    bar
}

/// The style of a live bar. Title and message are filled in by indicatif, so braces in them are safe.
fn style(total: u64, unit: &str, whole: Whole) -> ProgressStyle {
    let template = TEMPLATES[usize::from(total > 0)];
    let (unit, per) = (unit.to_owned(), unit.to_owned());
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("unit", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&unit);
        })
        .with_key("rate", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{:.1} {per}/s", state.per_sec());
        })
        .with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let left = whole.left(state.pos(), state.elapsed());
            let _ = out.write_str(&left.map_or_else(|| "? s".to_owned(), printed));
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in TEMPLATES {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
