//! `kinora bench`: measures that anyone can repeat.

mod animate;
mod load;
mod service;

use clap::Subcommand;

use super::Failure;

/// Measure this machine: the service under load, or the making of a clip.
#[derive(Debug, Subcommand)]
pub enum Bench {
    Animate(Box<animate::BenchAnimate>),
    Service(service::BenchService),
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Animate(animate) => animate.run(),
            Self::Service(service) => service.run(),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}
