//! Where the time of a measure goes: libtorch's operators, and what the convolutions reach of the
//! speed of a plain matrix product.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::measures::{Measure, Setting};
use crate::Result;
use crate::models::Architecture;
use crate::native::Half;
use crate::native::profile::{OperatorTime, profile};

/// Operators listed; the others are one line.
const LISTED: usize = 10;
/// Rounds that are measured.
const ROUNDS: usize = 5;
/// Multiply-adds of nn4.small2's first convolution in 10⁹: 48 x 48 places, 7 x 7 x 3 to 64.
const STEM: f64 = 0.0217;
/// The side of the matrices whose product is the yardstick.
const SIDE: i64 = 2048;

/// What a measure's rounds did.
pub struct Profile {
    /// Seconds of a round.
    pub round: f64,
    /// The slowest operators, seconds and calls of a round.
    pub operators: Vec<OperatorTime>,
    /// Operations of the network's convolutions per second, and of a matrix product in the same
    /// numbers, both in 10⁹.
    pub share: Option<[f64; 2]>,
}

impl Profile {
    /// Measures some rounds; none for what computes nothing with the network.
    ///
    /// # Errors
    /// An error from the work.
    pub fn of(measure: &mut Measure, setting: &Setting) -> Result<Option<Self>> {
        // A training step computes each convolution three times: forward, for the gradient of its
        // weight, for that of its input, which the first needs not.
        let once = setting.architecture.info().gflops;
        let stem = if setting.architecture == Architecture::OpenFace { STEM } else { 0.0 };
        let (multiplications, half) = match measure.name {
            "forward" => (once, None),
            "forward-16" => (once, setting.compute.half()),
            "step" => (3.0 * once - stem, setting.compute.half()),
            _ => return Ok(None),
        };
        measure.seconds(2)?;
        let start = Instant::now();
        let mut operators = profile(|| measure.seconds(ROUNDS).map(drop))?;
        let round = start.elapsed().as_secs_f64() / ROUNDS as f64;
        for operator in &mut operators {
            operator.seconds /= ROUNDS as f64;
            operator.calls /= ROUNDS as u64;
        }
        let convolutions: f64 =
            operators.iter().filter(|row| is_convolution(&row.name)).map(|row| row.seconds).sum();
        let share = (setting.device == Device::Cpu && convolutions > 0.0).then(|| {
            let gflops = 2.0 * multiplications * setting.batch as f64;
            [gflops / convolutions, matrix_product(half)]
        });
        Ok(Some(Self { round, operators, share }))
    }

    /// The table, and the sentence below it.
    pub fn text(&self, name: &str) -> String {
        let mut text = format!("\n{name}: {:.1} ms a round\n", 1e3 * self.round);
        let line = |name: &str, seconds: f64, calls: String| {
            let share = 100.0 * seconds / self.round;
            format!("  {name:<44}{:>9.2} ms{share:>7.1} %{calls:>7}\n", 1e3 * seconds)
        };
        for row in self.operators.iter().take(LISTED) {
            text += &line(&row.name, row.seconds, row.calls.to_string());
        }
        let rest: f64 = self.operators.iter().skip(LISTED).map(|row| row.seconds).sum();
        text += &line("other operators", rest, String::new());
        let inside: f64 = self.operators.iter().map(|row| row.seconds).sum();
        text += &line("outside of operators", self.round - inside, String::new());
        if let Some([own, product]) = self.share {
            let share = 100.0 * own / product;
            text += &format!(
                "  convolutions: {own:.0} GFLOP/s, {share:.0} % of the {product:.0} GFLOP/s of a \
                 matrix product ({SIDE} x {SIDE})\n"
            );
        }
        text
    }
}

fn is_convolution(operator: &str) -> bool {
    operator.contains("convolution")
}

/// 10⁹ operations per second of a product of two square matrices: the best of a few.
fn matrix_product(half: Option<Half>) -> f64 {
    let kind = match half {
        None => Kind::Float,
        Some(Half::BFloat16) => Kind::BFloat16,
        Some(Half::Float16) => Kind::Half,
    };
    let x = Tensor::rand([SIDE, SIDE], (Kind::Float, Device::Cpu)).to_kind(kind);
    let seconds = (0..7).map(|_| {
        let start = Instant::now();
        let _ = std::hint::black_box(x.matmul(&x));
        start.elapsed().as_secs_f64()
    });
    2.0 * (SIDE as f64).powi(3) / seconds.fold(f64::INFINITY, f64::min) / 1e9
}
