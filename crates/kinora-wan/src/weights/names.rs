//! What files call the transformer's layers, and what the diffusers library calls them.
//!
//! Always true: a name that is not known here comes back as it is written, without what programs put before it, so that whoever looks it up can tell it.
//! Sources: the models' own program and the diffusers library; programs that train adapters, some of which write
//! underscores for the dots in a layer's name (kohya-ss' musubi-tuner, VideoX-Fun, LyCORIS).

/// What programs put before the layers' names, some of them two of these.
const PREFIXES: [&str; 5] = ["base_model.model.", "model.", "diffusion_model.", "transformer.", "pipe.dit."];
/// The same where underscores stand for dots.
const FLAT_PREFIXES: [&str; 3] = ["lora_unet__", "lora_unet_", "lycoris_"];

/// Layers outside of the blocks: the models' own name, then diffusers'.
const OUTSIDE: [(&str, &str); 7] = [
    ("patch_embedding", "patch_embedding"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.head", "proj_out"),
];
/// Layers of a block.
const IN_BLOCK: [(&str, &str); 15] = [
    ("self_attn.q", "attn1.to_q"),
    ("self_attn.k", "attn1.to_k"),
    ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"),
    ("self_attn.norm_q", "attn1.norm_q"),
    ("self_attn.norm_k", "attn1.norm_k"),
    ("cross_attn.q", "attn2.to_q"),
    ("cross_attn.k", "attn2.to_k"),
    ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("cross_attn.norm_q", "attn2.norm_q"),
    ("cross_attn.norm_k", "attn2.norm_k"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    // The norm before the text is the second in the library, the third in the models' own program.
    ("norm3", "norm2"),
];
/// Layers of a block that read the states of an image encoder, which Wan2.1 has and Wan2.2 has not.
const IMAGE_IN_BLOCK: [(&str, &str); 3] = [
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    ("cross_attn.norm_k_img", "attn2.norm_added_k"),
];
/// What the names of layers outside of the blocks begin with that belong to it.
const IMAGE_OUTSIDE: [&str; 2] = ["img_emb.", "condition_embedder.image_embedder."];
const TABLE: &str = "scale_shift_table";

/// A name as it is written, without what programs put before it.
#[derive(Debug, Clone, Copy)]
struct Written<'a> {
    name: &'a str,
    /// Underscores stand for dots.
    flat: bool,
}

impl<'a> Written<'a> {
    fn of(name: &'a str) -> Self {
        if let Some(name) = FLAT_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            return Self { name, flat: true };
        }
        let mut name = name;
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest;
        }
        Self { name, flat: false }
    }

    fn spelled(self, name: &str) -> String {
        if self.flat { name.replace('.', "_") } else { name.to_owned() }
    }

    /// The number of the block and what stands behind it.
    fn in_block(self) -> Option<(&'a str, Self)> {
        let dot = if self.flat { '_' } else { '.' };
        let (number, name) = self.name.strip_prefix("blocks")?.strip_prefix(dot)?.split_once(dot)?;
        Some((number, Self { name, ..self }))
    }

    /// The library's name among `known`.
    fn among(self, known: &[(&str, &'static str)]) -> Option<&'static str> {
        let is = |name: &str| self.spelled(name) == self.name;
        known.iter().find(|(own, library)| is(own) || is(library)).map(|(_, library)| *library)
    }
}

/// Diffusers' name for the layer that is written as `name` in either naming.
pub(super) fn layer(name: &str) -> String {
    let written = Written::of(name);
    if let Some(library) = written.among(&OUTSIDE) {
        return library.to_owned();
    }
    match written.in_block().and_then(|(number, part)| Some((number, part.among(&IN_BLOCK)?))) {
        Some((number, library)) => format!("blocks.{number}.{library}"),
        None => written.name.to_owned(),
    }
}

/// Diffusers' name for the table of shifts, scales and gates of what is written as `name`: a block, the head, or the
/// table itself.
pub(super) fn table(name: &str) -> String {
    let written = Written::of(name).name;
    let owner = ["modulation", TABLE].iter().find_map(|own| written.strip_suffix(own)).unwrap_or(written);
    match owner.trim_end_matches(['.', '_']) {
        "head" | "" => TABLE.to_owned(),
        block => format!("{}.{TABLE}", block.replacen("blocks_", "blocks.", 1)),
    }
}

/// Whether `name` is a table's, as [`table`] takes it.
pub(super) fn is_table(name: &str) -> bool {
    let written = Written::of(name).name;
    written.ends_with("modulation") || written.ends_with(TABLE)
}

/// Whether the layer written as `name` belongs to an image encoder, which no model here has.
pub(super) fn is_image_branch(name: &str) -> bool {
    let written = Written::of(name);
    IMAGE_OUTSIDE.iter().any(|prefix| written.name.starts_with(&written.spelled(prefix)))
        || written.in_block().is_some_and(|(_, part)| part.among(&IMAGE_IN_BLOCK).is_some())
}

#[cfg(test)]
mod tests {
    use super::{IN_BLOCK, OUTSIDE, is_image_branch, is_table, layer, table};

    #[test]
    fn every_way_to_write_a_layer_means_it() {
        let in_block = IN_BLOCK.map(|(own, library)| [own, library].map(|part| format!("blocks.17.{part}")));
        let outside = OUTSIDE.map(|(own, library)| [own, library].map(str::to_owned));
        for [own, library] in in_block.into_iter().chain(outside) {
            for name in [&own, &library] {
                let flat = name.replace('.', "_");
                for written in [
                    name.clone(),
                    format!("diffusion_model.{name}"),
                    format!("transformer.{name}"),
                    format!("base_model.model.{name}"),
                    format!("base_model.model.diffusion_model.{name}"),
                    format!("model.diffusion_model.{name}"),
                    format!("pipe.dit.{name}"),
                    format!("lora_unet_{flat}"),
                    format!("lora_unet__{flat}"),
                ] {
                    assert_eq!(layer(&written), library, "{written}");
                    assert!(!is_image_branch(&written), "{written}");
                }
            }
        }
        assert_eq!(layer("transformer.vace_blocks.0.attn1.to_q"), "vace_blocks.0.attn1.to_q");
        assert_eq!(layer("lora_te_text_model_0"), "lora_te_text_model_0");
    }

    #[test]
    fn tables_are_named_by_what_they_belong_to() {
        for (written, library) in [
            ("diffusion_model.blocks.3", "blocks.3.scale_shift_table"),
            ("diffusion_model.blocks.3.modulation", "blocks.3.scale_shift_table"),
            ("transformer.blocks.3.scale_shift_table", "blocks.3.scale_shift_table"),
            ("lora_unet_blocks_3_modulation", "blocks.3.scale_shift_table"),
            ("lora_unet_blocks_3", "blocks.3.scale_shift_table"),
            ("head", "scale_shift_table"),
            ("head.modulation", "scale_shift_table"),
            ("transformer.scale_shift_table", "scale_shift_table"),
        ] {
            assert_eq!(table(written), library, "{written}");
        }
        assert!(is_table("blocks.3.modulation") && !is_table("blocks.3.norm3"));
    }

    #[test]
    fn the_image_branch_is_known_in_every_spelling() {
        for name in [
            "diffusion_model.blocks.0.cross_attn.k_img",
            "diffusion_model.blocks.0.cross_attn.norm_k_img",
            "transformer.blocks.39.attn2.add_v_proj",
            "lora_unet_blocks_39_cross_attn_v_img",
            "diffusion_model.img_emb.proj.1",
            "lora_unet_img_emb_proj_3",
            "transformer.condition_embedder.image_embedder.ff.net.2",
        ] {
            assert!(is_image_branch(name), "{name}");
        }
    }
}
