//! `kinora bench`: measures that anyone can repeat.

mod animate;
mod load;
mod service;
mod wan;

use clap::Subcommand;

use super::Failure;

/// Measure this machine: the service under load, the making of a clip, or pieces of the neural engine.
#[derive(Debug, Subcommand)]
pub enum Bench {
    Animate(Box<animate::BenchAnimate>),
    Service(service::BenchService),
    Wan(wan::BenchWan),
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Animate(animate) => animate.run(),
            Self::Service(service) => service.run(),
            Self::Wan(wan) => wan.run(),
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
