//! How much memory a pass through the transformer works with, counted in tensors of all tokens.
//!
//! The numbers follow from the order of the work in `block.rs`; a test holds them against an allocator that counts.

use super::Dit;
use super::block::FEED_FORWARD_TOKENS;
use crate::ops::{Ops, Products, Set, scores_bytes};

/// Tensors of all tokens while attention is computed: the input, what was normalised, queries, keys, values, the answer.
const IN_ATTENTION: usize = 6;
/// With the tensor library's operations also: keys and values by head, the answer once more while it is joined, and buffers
/// of products.
const TENSORS_IN_ATTENTION: usize = 12;
/// While the feed-forward layer is: the inputs of the block and of the layer, what was normalised, the answer.
const IN_FEED_FORWARD: usize = 4;
/// Tensors of the feed-forward layer's wide middle: while GELU is computed, or one is laid out for a product.
const MIDDLES: usize = 2;
/// With the tensor library's operations: as they are multiplied, widened, with their bias, or after GELU.
const TENSOR_MIDDLES: usize = 3;

/// Bytes that one thread needs for the scores of its tile of attention, once as they are and once laid out for a product.
const SCORES_SCRATCH_BYTES: usize = 5 << 17;
/// Queries of a tile and keys of a block, of one head, that it lays out besides.
const SCRATCH_ROWS: usize = 640;

impl Dit {
    /// Bytes that [`Dit::forward`] and what its steps share work with by `ops`, beside the weights, for latents of this
    /// many frames, rows and columns.
    pub fn working_bytes(&self, latents: [usize; 3], ops: Ops) -> u64 {
        let config = self.config();
        let tokens: usize = latents.iter().zip(config.patch_size).map(|(side, patch)| side / patch).product();
        let all = tokens * config.width() * size_of::<f32>();
        let middle = FEED_FORWARD_TOKENS.min(tokens) * config.ffn_dim * size_of::<f32>();
        // Latents, once as they come and once in patches.
        let patches = 2 * tokens * config.in_channels * config.patch_size.iter().product::<usize>();
        let angles = tokens * config.attention_head_dim;
        let shared = (patches + angles) * size_of::<f32>();
        let (attention, feed_forward) = match ops.set {
            Set::Cpu => {
                // In bf16 keys and values are laid out once more, in half the width.
                let narrow = usize::from(ops.products == Products::Bf16);
                let laid_out = SCRATCH_ROWS * config.attention_head_dim * size_of::<f32>();
                let scratch = rayon::current_num_threads() * (SCORES_SCRATCH_BYTES + laid_out);
                let feed_forward = IN_FEED_FORWARD * all + (MIDDLES * middle).max(all);
                ((IN_ATTENTION + narrow) * all + scratch, feed_forward + scratch)
            }
            Set::Tensors => {
                let scores = scores_bytes(tokens, tokens, config.num_attention_heads);
                let attention = TENSORS_IN_ATTENTION * all + 2 * scores;
                let feed_forward = (IN_FEED_FORWARD + 1) * all + TENSOR_MIDDLES * middle;
                // The two largest quantised weights as they are multiplied, the second of them widened before.
                let narrowed = usize::from(ops.products == Products::Bf16) * size_of::<f32>();
                let widths = 2 * ops.products.dtype().size_in_bytes() + narrowed;
                let widened = if self.is_quantised() { config.width() * config.ffn_dim * widths } else { 0 };
                (attention + widened, feed_forward + widened)
            }
        };
        (attention.max(feed_forward) + shared) as u64
    }
}
