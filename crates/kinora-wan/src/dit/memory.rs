//! How much memory a pass through the transformer works with, counted in tensors of all tokens.
//!
//! The numbers follow from the order of the work in `block.rs`; a test holds them against an allocator that counts.

use super::Dit;
use super::block::FEED_FORWARD_TOKENS;
use crate::ops::Products;

/// Tensors of all tokens while attention is computed: the input, what was normalised, queries, keys, values, the answer.
const IN_ATTENTION: usize = 6;
/// While the feed-forward layer is: the inputs of the block and of the layer, what was normalised, the answer.
const IN_FEED_FORWARD: usize = 4;

/// Bytes that one thread needs for its tile of attention.
const SCRATCH_BYTES: usize = 1 << 19;

impl Dit {
    /// Bytes that [`Dit::forward`] and what its steps share work with, beside the weights, for latents of this many
    /// frames, rows and columns.
    pub fn working_bytes(&self, latents: [usize; 3]) -> u64 {
        let config = self.config();
        let tokens: usize = latents.iter().zip(config.patch_size).map(|(side, patch)| side / patch).product();
        let all = tokens * config.width();
        let narrow = self.products == Products::Bf16;
        // In bf16 keys and values are laid out once more, in half the width.
        let attention = (IN_ATTENTION + usize::from(narrow)) * all;
        // The wide middle of one band, once more while GELU is computed, or laid out in half the width.
        let band = 2 * FEED_FORWARD_TOKENS.min(tokens) * config.ffn_dim;
        let feed_forward = IN_FEED_FORWARD * all + band.max(all);
        // Latents, once as they come and once in patches.
        let patches = 2 * tokens * config.in_channels * config.patch_size.iter().product::<usize>();
        let angles = tokens * config.attention_head_dim;
        let scratch = rayon::current_num_threads() * SCRATCH_BYTES;
        ((attention.max(feed_forward) + patches + angles) * size_of::<f32>() + scratch) as u64
    }
}
