//! UniPC: a multistep predictor, and a corrector that uses each velocity once more.
//!
//! Source: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework" (2023), in the form for predicted clean
//! samples; `UniPCMultistepScheduler` of the diffusers library for what the paper leaves open.

use candle_core::Tensor;
use serde::Deserialize;

use super::{Schedule, check_levels, linspace, refuse, shifted};
use crate::WanError;

/// How far below 1 the first level is kept, where the logarithm of its signal would be infinite.
const FIRST_LEVEL_GAP: f64 = 1e-6;

/// `UniPCMultistepScheduler`, as far as flow models use it. Absent keys have the library's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct UniPcConfig {
    pub(super) num_train_timesteps: usize,
    solver_order: usize,
    prediction_type: String,
    thresholding: bool,
    predict_x0: bool,
    solver_type: String,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
    use_karras_sigmas: bool,
    use_exponential_sigmas: bool,
    use_beta_sigmas: bool,
    use_flow_sigmas: bool,
    pub(super) flow_shift: f64,
    final_sigmas_type: String,
    use_dynamic_shifting: bool,
    shift_terminal: Option<f64>,
}

impl Default for UniPcConfig {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            solver_order: 2,
            prediction_type: "epsilon".to_owned(),
            thresholding: false,
            predict_x0: true,
            solver_type: "bh2".to_owned(),
            lower_order_final: true,
            disable_corrector: Vec::new(),
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            use_flow_sigmas: false,
            flow_shift: 1.0,
            final_sigmas_type: "zero".to_owned(),
            use_dynamic_shifting: false,
            shift_terminal: None,
        }
    }
}

impl UniPcConfig {
    /// As the published models have it, over so many time units of training.
    pub(super) fn of_flow(num_train_timesteps: usize, flow_shift: f64) -> Self {
        let prediction_type = "flow_prediction".to_owned();
        Self { num_train_timesteps, prediction_type, flow_shift, use_flow_sigmas: true, ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        refuse(&[
            ("thresholding", self.thresholding),
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_dynamic_shifting", self.use_dynamic_shifting),
            ("shift_terminal", self.shift_terminal.is_some()),
        ])?;
        check_levels(self.num_train_timesteps, ("flow_shift", self.flow_shift))?;
        if self.prediction_type != "flow_prediction" || !self.use_flow_sigmas || !self.predict_x0 {
            return Err(
                "only `flow_prediction` with `use_flow_sigmas` and `predict_x0` is supported".to_owned()
            );
        }
        if !(1..=3).contains(&self.solver_order) {
            return Err(format!("`solver_order` must be from 1 to 3, not {}", self.solver_order));
        }
        if !["bh1", "bh2"].contains(&self.solver_type.as_str()) {
            return Err(format!("`solver_type` must be bh1 or bh2, not {}", self.solver_type));
        }
        match (self.final_sigmas_type.as_str(), self.lower_order_final) {
            ("zero", false) => {
                Err("without `lower_order_final` the last step to level 0 has no value".to_owned())
            }
            ("zero" | "sigma_min", _) => Ok(()),
            (other, _) => Err(format!("`final_sigmas_type` must be zero or sigma_min, not {other}")),
        }
    }

    pub(super) fn schedule(&self, steps: usize) -> Schedule {
        let train = self.num_train_timesteps as f64;
        let mut levels = linspace(1.0, 1.0 / train, steps + 1);
        levels.pop();
        levels.iter_mut().for_each(|sigma| *sigma = shifted(*sigma, self.flow_shift));
        if (levels[0] - 1.0).abs() < FIRST_LEVEL_GAP {
            levels[0] -= FIRST_LEVEL_GAP;
        }
        // Whole numbers, cut off.
        let times = levels.iter().map(|sigma| (sigma * train).trunc() as f32).collect();
        let mut sigmas: Vec<f32> = levels.iter().map(|sigma| *sigma as f32).collect();
        sigmas.push(match self.final_sigmas_type.as_str() {
            "zero" => 0.0,
            _ => sigmas[steps - 1],
        });
        Schedule { sigmas, times }
    }
}

/// What the solver remembers between steps.
#[derive(Debug)]
pub(super) struct UniPc {
    config: UniPcConfig,
    /// Predicted clean samples, the newest last.
    clean: Vec<Tensor>,
    /// The sample that the last prediction started from, and the order it had.
    last: Option<(Tensor, usize)>,
}

/// The coefficients of one update from level `from` to level `to` (indices into the levels).
struct Update {
    /// `σ_to / σ_from`
    keep: f32,
    alpha: f32,
    /// `e^(-h) - 1`
    phi_1: f32,
    b_h: f32,
    /// Places of the older levels and of the new one, relative to the step, the new one last.
    places: Vec<f32>,
    /// The right-hand sides that the weights of the differences solve for.
    sides: Vec<f32>,
}

impl UniPc {
    pub(super) fn new(config: UniPcConfig) -> Self {
        Self { config, clean: Vec::new(), last: None }
    }

    pub(super) fn step(
        &mut self,
        sigmas: &[f32],
        step: usize,
        velocity: &Tensor,
        sample: &Tensor,
    ) -> Result<Tensor, WanError> {
        let clean = (sample - (velocity * f64::from(sigmas[step]))?)?;
        let sample = match &self.last {
            Some((last, order)) if !self.config.disable_corrector.contains(&(step - 1)) => {
                self.correct(sigmas, step, last, *order, &clean)?
            }
            _ => sample.clone(),
        };
        if self.clean.len() == self.config.solver_order {
            self.clean.remove(0);
        }
        self.clean.push(clean);
        let steps = sigmas.len() - 1;
        let mut order = self.config.solver_order.min(step + 1);
        if self.config.lower_order_final {
            order = order.min(steps - step);
        }
        let next = self.predict(sigmas, step, &sample, order)?;
        self.last = Some((sample, order));
        Ok(next)
    }

    /// From level `step` to the next, over the last `order` clean samples.
    fn predict(
        &self,
        sigmas: &[f32],
        step: usize,
        sample: &Tensor,
        order: usize,
    ) -> Result<Tensor, WanError> {
        let update = self.update(sigmas, step, step + 1, order);
        let weights = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => solve(&update.places, &update.sides, order - 1),
        };
        let newest = self.clean.last().expect("the step's own clean sample is there");
        let plain = plain(&update, sample, newest)?;
        match self.differences(&update, &weights)? {
            Some(sum) => Ok((plain - (sum * f64::from(update.alpha * update.b_h))?)?),
            None => Ok(plain),
        }
    }

    /// The sample at level `step` once more, now that the clean sample there is known.
    fn correct(
        &self,
        sigmas: &[f32],
        step: usize,
        last: &Tensor,
        order: usize,
        clean: &Tensor,
    ) -> Result<Tensor, WanError> {
        let update = self.update(sigmas, step - 1, step, order);
        let weights = if order == 1 { vec![0.5] } else { solve(&update.places, &update.sides, order) };
        let newest = self.clean.last().expect("a step was taken before");
        let (own, older) = weights.split_last().expect("an order is at least 1");
        let mut sum = ((clean - newest)? * f64::from(*own))?;
        if let Some(older) = self.differences(&update, older)? {
            sum = (older + sum)?;
        }
        Ok((plain(&update, last, newest)? - (sum * f64::from(update.alpha * update.b_h))?)?)
    }

    fn update(&self, sigmas: &[f32], from: usize, to: usize, order: usize) -> Update {
        let signal = |index: usize| (1.0 - sigmas[index]).ln() - sigmas[index].ln();
        let length = signal(to) - signal(from);
        let negative = -length;
        let phi_1 = negative.exp_m1();
        let b_h = if self.config.solver_type == "bh1" { negative } else { phi_1 };
        let mut places: Vec<f32> =
            (1..order).map(|back| (signal(from - back) - signal(from)) / length).collect();
        places.push(1.0);
        let mut sides = Vec::with_capacity(order);
        let (mut phi, mut factorial) = (phi_1 / negative - 1.0, 1.0f32);
        for index in 1..=order {
            sides.push(phi * factorial / b_h);
            factorial *= (index + 1) as f32;
            phi = phi / negative - 1.0 / factorial;
        }
        Update { keep: sigmas[to] / sigmas[from], alpha: 1.0 - sigmas[to], phi_1, b_h, places, sides }
    }

    /// The weighted sum of what older clean samples differ from the newest by, each over its place.
    fn differences(&self, update: &Update, weights: &[f32]) -> Result<Option<Tensor>, WanError> {
        let mut newest_first = self.clean.iter().rev();
        let newest = newest_first.next().expect("a step was taken before");
        let mut sum: Option<Tensor> = None;
        for ((older, place), weight) in newest_first.zip(&update.places).zip(weights) {
            let term = (((older - newest)? / f64::from(*place))? * f64::from(*weight))?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        Ok(sum)
    }
}

/// The update without differences.
fn plain(update: &Update, sample: &Tensor, newest: &Tensor) -> Result<Tensor, WanError> {
    let kept = (sample * f64::from(update.keep))?;
    Ok((kept - (newest * f64::from(update.alpha * update.phi_1))?)?)
}

/// Solves `Σⱼ places[j]^i · x[j] = sides[i]` for `i < order`, by elimination with the largest pivot.
fn solve(places: &[f32], sides: &[f32], order: usize) -> Vec<f32> {
    let row = |power: usize| -> Vec<f64> {
        let powers = places[..order].iter().map(|place| f64::from(place.powi(power as i32)));
        powers.chain([f64::from(sides[power])]).collect()
    };
    let mut rows: Vec<Vec<f64>> = (0..order).map(row).collect();
    for column in 0..order {
        let pivot = (column..order).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.expect("a column has rows"));
        let (above, below) = rows.split_at_mut(column + 1);
        for row in below {
            let factor = row[column] / above[column][column];
            for (number, pivot) in row[column..].iter_mut().zip(&above[column][column..]) {
                *number -= factor * pivot;
            }
        }
    }
    let mut solution = vec![0.0; order];
    for index in (0..order).rev() {
        let known: f64 = (index + 1..order).map(|column| rows[index][column] * solution[column]).sum();
        solution[index] = (rows[index][order] - known) / rows[index][index];
    }
    solution.into_iter().map(|number| number as f32).collect()
}
