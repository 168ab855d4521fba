//! Whether a clip of the neural engine fits into the machine's memory, and what to do if not.

use kinora_wan::Needs;

use crate::machine::Memory;

/// A clip's needs beside what there is.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    pub needs: Needs,
    /// `None` where the system does not tell.
    pub memory: Option<Memory>,
}

impl Fit {
    /// Why the clip cannot be made, and what can be done.
    pub fn problem(&self) -> Option<String> {
        let available = self.memory?.available_bytes;
        let wanted = self.needs.working_bytes;
        (wanted > available).then(|| {
            let remedy = match self.needs.stage {
                "denoise" => "a smaller --size or fewer --frames take less",
                "decode" => "a smaller --size takes less, and so may --vae-tile 256",
                _ => "a smaller --size takes less",
            };
            format!(
                "{} would need about {} of memory in the stage `{}`, beside the weights, and {} are free: {remedy}",
                self.clip(),
                gigabytes(wanted),
                self.needs.stage,
                gigabytes(available),
            )
        })
    }

    /// What a user should know of the memory, in a line.
    pub fn remark(&self) -> String {
        let Needs { working_bytes, weights_bytes, stage, .. } = self.needs;
        let clip = self.clip();
        let Some(memory) = self.memory else {
            let needs = gigabytes(working_bytes);
            return format!(
                "{clip} needs about {needs} beside the weights; this system does not tell its memory"
            );
        };
        if let Some(problem) = self.problem() {
            return problem;
        }
        let fits = format!(
            "{clip} fits: about {} in the stage `{stage}`, beside the weights",
            gigabytes(working_bytes)
        );
        if working_bytes + weights_bytes <= memory.available_bytes {
            return fits;
        }
        format!(
            "{fits}; but not the transformer's weights of {} as well, which every step would read from the disk again: \
             a smaller quantisation of them, or a smaller --size or fewer --frames help",
            gigabytes(weights_bytes)
        )
    }

    fn clip(&self) -> String {
        let Needs { size, frames, .. } = self.needs;
        format!("a clip of {}x{} and {frames} frames", size.width_px, size.height_px)
    }
}

pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use kinora_wan::picture::Size;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn fit(working_gb: u64, available_gb: u64, stage: &'static str) -> Fit {
        let size = Size { width_px: 1280, height_px: 704 };
        let needs =
            Needs { size, frames: 121, stage, working_bytes: working_gb * GB, weights_bytes: 10 * GB };
        let memory = Memory { total_bytes: 64 * GB, available_bytes: available_gb * GB };
        Fit { needs, memory: Some(memory) }
    }

    #[test]
    fn what_does_not_fit_is_told_with_size_need_and_remedy() {
        let problem = fit(4, 3, "denoise").problem().unwrap();
        for part in ["1280x704 and 121 frames", "4.0 GB", "3.0 GB are free", "`denoise`", "fewer --frames"] {
            assert!(problem.contains(part), "{problem}");
        }
        assert!(fit(4, 3, "decode").problem().unwrap().contains("--vae-tile"));
        assert!(fit(4, 4, "denoise").problem().is_none());
        assert!(Fit { memory: None, ..fit(4, 3, "denoise") }.problem().is_none());
    }

    #[test]
    fn weights_that_must_be_read_again_are_remarked() {
        assert!(fit(4, 13, "denoise").remark().contains("read from the disk again"));
        assert!(!fit(4, 14, "denoise").remark().contains("read from the disk again"));
        assert!(fit(4, 3, "denoise").remark().contains("are free"));
    }
}
