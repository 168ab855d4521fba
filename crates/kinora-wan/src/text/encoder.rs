//! The encoder of UMT5: T5 with a relative-position bias of its own in every layer.
//!
//! What bites: scores are not divided by the root of the head's width; normalisation takes no mean away; the feed-forward
//! layer multiplies a GELU branch with a plain one.
//! Sources: Raffel et al., "Exploring the Limits of Transfer Learning" (2020); Chung et al., "UniMax" (2023); the
//! transformers library, `UMT5EncoderModel`, whose names of tensors are kept.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::TOKENS_MAX;
use crate::ops::{Linear, Ops, Place, Set, softmax};
use crate::weights::{Matrix, Weights, check_sizes, read_json};
use crate::{Cancel, WanError, go_on};

/// `text_encoder/config.json`. Absent keys have the library's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct EncoderConfig {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f64,
    pub feed_forward_proj: String,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 250_112,
            d_model: 512,
            d_kv: 64,
            d_ff: 1024,
            num_layers: 8,
            num_heads: 6,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "gated-gelu".to_owned(),
        }
    }
}

impl EncoderConfig {
    fn read(path: &Path) -> Result<Self, WanError> {
        let config: Self = read_json(path)?;
        config.check().map_err(|problem| WanError::config(path, problem))?;
        Ok(config)
    }

    /// Bytes that [`Encoder::forward`] works with by `ops` for the longest text, beside weights that stay.
    pub fn working_bytes(&self, ops: Ops) -> u64 {
        let &Self { num_heads, d_model, d_ff, .. } = self;
        // Scores, their bias, both together and their powers; the two branches of the feed-forward layer.
        let scores = 5 * num_heads * TOKENS_MAX * TOKENS_MAX;
        let feed_forward = 4 * TOKENS_MAX * d_ff;
        // On a device the largest weight as it is stored and as it is multiplied.
        let weight = match ops.set {
            Set::Cpu => 0,
            Set::Tensors => 2 * d_model * d_ff,
        };
        ((scores.max(feed_forward) + 6 * TOKENS_MAX * d_model + weight) * size_of::<f32>()) as u64
    }

    fn check(&self) -> Result<(), String> {
        if self.feed_forward_proj != "gated-gelu" {
            return Err(format!("`feed_forward_proj` must be gated-gelu, not {}", self.feed_forward_proj));
        }
        check_sizes(&[
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
            ("num_heads * d_kv", self.num_heads.saturating_mul(self.d_kv)),
            ("num_layers", self.num_layers),
            ("vocab_size", self.vocab_size),
        ])?;
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if buckets < 4 || distance <= buckets / 4 {
            return Err(format!("{buckets} buckets do not reach over a distance of {distance}"));
        }
        Ok(())
    }
}

/// Tokens to states.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Tensor,
    ops: Ops,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// `[buckets, A]`
    bias: Vec<Vec<f32>>,
    feed_forward_norm: Tensor,
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
    ops: Ops,
}

impl Encoder {
    /// Opens the encoder in `folder`; every tensor's name and shape is checked.
    pub fn load(folder: &Path, place: Place<'_>) -> Result<Self, WanError> {
        Self::of(EncoderConfig::read(&folder.join("config.json"))?, &Weights::open(folder)?, place)
    }

    /// The encoder of `config` with `weights`.
    pub fn of(config: EncoderConfig, weights: &Weights, place: Place<'_>) -> Result<Self, WanError> {
        let device = place.device;
        // The library shares the table between encoder and decoder and may save it under either name.
        let names = ["shared.weight", "encoder.embed_tokens.weight"];
        let name = names.into_iter().find(|name| weights.contains(name)).unwrap_or(names[0]);
        let layers = (0..config.num_layers).map(|index| Layer::load(weights, &config, index, place));
        Ok(Self {
            embedding: weights.matrix(name, &[config.vocab_size, config.d_model])?,
            layers: layers.collect::<Result<_, _>>()?,
            final_norm: weights.tensor(
                "encoder.final_layer_norm.weight",
                config.d_model,
                DType::F32,
                device,
            )?,
            config,
            ops: place.ops,
            device: device.clone(),
        })
    }

    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// L tokens to `[L, text_dim]`. Cancels between layers.
    pub fn forward(&self, ids: &[u32], cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let mut x = self.embed(ids)?;
        let buckets = buckets(ids.len(), &self.config);
        for layer in &self.layers {
            go_on(cancel)?;
            x = layer.forward(&x, &self.config, &buckets)?;
        }
        self.ops.rms_norm(&x, &self.final_norm, self.config.layer_norm_epsilon)
    }

    fn embed(&self, ids: &[u32]) -> Result<Tensor, WanError> {
        let width = self.config.d_model;
        let mut rows = vec![0f32; ids.len() * width];
        for (row, &id) in rows.chunks_exact_mut(width).zip(ids) {
            let id = id as usize;
            if id >= self.config.vocab_size {
                let size = self.config.vocab_size;
                return Err(WanError::Request(format!(
                    "the tokenizer gave the token {id}, the text encoder has {size}: they do not belong together"
                )));
            }
            self.embedding.widen_rows(id..id + 1, row);
        }
        Ok(Tensor::from_vec(rows, (ids.len(), width), &self.device)?)
    }
}

impl Layer {
    fn load(
        weights: &Weights,
        config: &EncoderConfig,
        index: usize,
        place: Place<'_>,
    ) -> Result<Self, WanError> {
        let prefix = format!("encoder.block.{index}.layer");
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let linear = |name: &str, outputs, inputs| {
            Linear::load(weights, &format!("{prefix}.{name}"), &[outputs, inputs], false, place)
        };
        let norm = |part: usize| {
            weights.tensor(&format!("{prefix}.{part}.layer_norm.weight"), width, DType::F32, place.device)
        };
        let bias = weights.tensor(
            &format!("{prefix}.0.SelfAttention.relative_attention_bias.weight"),
            (config.relative_attention_num_buckets, config.num_heads),
            DType::F32,
            &Device::Cpu,
        )?;
        Ok(Self {
            attention_norm: norm(0)?,
            q: linear("0.SelfAttention.q", inner, width)?,
            k: linear("0.SelfAttention.k", inner, width)?,
            v: linear("0.SelfAttention.v", inner, width)?,
            o: linear("0.SelfAttention.o", width, inner)?,
            bias: bias.to_vec2()?,
            feed_forward_norm: norm(1)?,
            wi_0: linear("1.DenseReluDense.wi_0", config.d_ff, width)?,
            wi_1: linear("1.DenseReluDense.wi_1", config.d_ff, width)?,
            // As in the reference: some of what the last layer sees is too large to lose its low bits.
            wo: Linear::load(
                weights,
                &format!("{prefix}.1.DenseReluDense.wo"),
                &[width, config.d_ff],
                false,
                place.exact(),
            )?,
            ops: place.ops,
        })
    }

    /// `[L, text_dim]` to the same; `buckets` `[L, L]` says which bias serves query and key.
    fn forward(&self, x: &Tensor, config: &EncoderConfig, buckets: &[usize]) -> Result<Tensor, WanError> {
        let normed = self.ops.rms_norm(x, &self.attention_norm, config.layer_norm_epsilon)?;
        let x = (x + self.attend(&normed, config, buckets)?)?;
        let normed = self.ops.rms_norm(&x, &self.feed_forward_norm, config.layer_norm_epsilon)?;
        let gated = (self.ops.gelu(&self.wi_0.forward(&normed)?)? * self.wi_1.forward(&normed)?)?;
        Ok((x + self.wo.forward(&gated)?)?)
    }

    fn attend(&self, x: &Tensor, config: &EncoderConfig, buckets: &[usize]) -> Result<Tensor, WanError> {
        let (tokens, heads) = (x.dim(0)?, config.num_heads);
        let by_head = |linear: &Linear| -> Result<Tensor, WanError> {
            let x = linear.forward(x)?.reshape((tokens, heads, config.d_kv))?;
            Ok(x.transpose(0, 1)?.contiguous()?) // [A, L, K]
        };
        let (q, k, v) = (by_head(&self.q)?, by_head(&self.k)?, by_head(&self.v)?);
        let bias: Vec<f32> = (0..heads)
            .flat_map(|head| buckets.iter().map(move |&bucket| (bucket, head)))
            .map(|(bucket, head)| self.bias[bucket][head])
            .collect();
        let bias = Tensor::from_vec(bias, (heads, tokens, tokens), x.device())?;
        let scores = (q.matmul(&k.t()?)? + bias)?; // [A, L, L]
        let read = softmax(&scores)?.matmul(&v)?; // [A, L, K]
        self.o.forward(&read.transpose(0, 1)?.reshape((tokens, heads * config.d_kv))?)
    }
}

/// Which bias serves a query (row) and a key (column): `[L, L]`.
fn buckets(tokens: usize, config: &EncoderConfig) -> Vec<usize> {
    let of = |query: usize| (0..tokens).map(move |key| bucket(key as i64 - query as i64, config));
    (0..tokens).flat_map(of).collect()
}

/// The bucket of a key that lies `distance` tokens after its query: half of them for keys before, half for keys after;
/// in each half one for each of the nearest distances, then ever wider ones, the last for all that is farther.
fn bucket(distance: i64, config: &EncoderConfig) -> usize {
    let half = config.relative_attention_num_buckets / 2;
    let side = if distance > 0 { half } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    let exact = half / 2;
    if distance < exact {
        return side + distance;
    }
    // In f32, as the reference rounds: a distance on the edge of a bucket falls to the same side.
    let reach = (config.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
    let wider = (distance as f32 / exact as f32).ln() / reach * (half - exact) as f32;
    side + (exact + wider as usize).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_reference() {
        let config = EncoderConfig::default();
        let of = |distance| bucket(distance, &config);
        // Printed by `UMT5Attention._relative_position_bucket` of transformers 5.23.0.
        let near = [0, 1, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 45, 46, 63, 64, 90, 91, 127, 128, 511];
        let expected = [0, 1, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 15, 15];
        for (distance, bucket) in near.into_iter().zip(expected) {
            assert_eq!(of(-distance), bucket, "{distance} before");
            let after = if distance == 0 { 0 } else { 16 + bucket };
            assert_eq!(of(distance), after, "{distance} after");
        }
    }
}
