//! Whether clips of the neural engine fit into the machine's memory, and what to do if not.

use kinora_wan::Needs;

use crate::machine::Memory;

/// What clips need beside what there is.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// Of one clip.
    pub needs: Needs,
    /// Clips that are made at the same time.
    pub clips_count: u32,
    /// `None` where the system does not tell.
    pub memory: Option<Memory>,
}

impl Fit {
    /// Bytes that all clips work with, beside the weights, which they share.
    pub fn working_bytes(&self) -> u64 {
        self.needs.working_bytes.saturating_mul(self.clips_count.into())
    }

    /// Why the clips cannot be made, and what can be done.
    pub fn problem(&self) -> Option<String> {
        let available = self.memory?.available_bytes;
        let wanted = self.working_bytes();
        (wanted > available).then(|| {
            let fewer = if self.clips_count > 1 { "fewer --workers take less, and " } else { "" };
            let remedy = match self.needs.stage {
                "denoise" => "a smaller --size or fewer --frames take less",
                "decode" => "a smaller --size takes less, and so may --vae-tile 256",
                _ => "a smaller --size takes less",
            };
            format!(
                "{} would need about {} of memory in the stage `{}`, beside the weights, and {} are free: {fewer}{remedy}",
                self.clips(),
                gigabytes(wanted),
                self.needs.stage,
                gigabytes(available),
            )
        })
    }

    /// What makes the clips slower than they could be, and what can be done.
    pub fn warning(&self) -> Option<String> {
        let available = self.memory?.available_bytes;
        let weights_bytes = self.needs.weights_bytes;
        (self.working_bytes().saturating_add(weights_bytes) > available).then(|| {
            format!(
                "{} are free for the transformer's weights of {}, beside about {} that {} takes: every step would read \
                 weights from the disk again; a smaller quantisation of them, or a smaller --size or fewer --frames help",
                gigabytes(available.saturating_sub(self.working_bytes())),
                gigabytes(weights_bytes),
                gigabytes(self.working_bytes()),
                self.clips(),
            )
        })
    }

    /// What a user should know of the memory, in a line.
    pub fn remark(&self) -> String {
        let (clips, needs) = (self.clips(), gigabytes(self.working_bytes()));
        if self.memory.is_none() {
            return format!(
                "{clips} takes about {needs} beside the weights; this system does not tell its memory"
            );
        }
        self.problem()
            .or_else(|| self.warning().map(|warning| format!("{clips} fits, but {warning}")))
            .unwrap_or_else(|| {
                format!("{clips} fits: about {needs} in the stage `{}`, beside the weights", self.needs.stage)
            })
    }

    fn clips(&self) -> String {
        self.needs.clips(self.clips_count)
    }
}

pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use kinora_wan::model::Residency;
    use kinora_wan::picture::Size;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn fit(working_gb: u64, available_gb: u64, stage: &'static str) -> Fit {
        let size = Size { width_px: 1280, height_px: 704 };
        let needs = Needs {
            size,
            frames: 121,
            stage,
            working_bytes: working_gb * GB,
            weights_bytes: 10 * GB,
            residency: Residency::Whole,
        };
        let memory = Memory { total_bytes: 64 * GB, available_bytes: available_gb * GB };
        Fit { needs, clips_count: 1, memory: Some(memory) }
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
    fn clips_that_are_made_at_the_same_time_all_take_memory() {
        let two = Fit { clips_count: 2, ..fit(4, 7, "denoise") };
        let problem = two.problem().unwrap();
        for part in ["2 at a time", "8.0 GB", "7.0 GB are free", "fewer --workers"] {
            assert!(problem.contains(part), "{problem}");
        }
        assert!(!fit(4, 3, "denoise").problem().unwrap().contains("--workers"));
        assert!(Fit { clips_count: 2, ..fit(4, 8, "denoise") }.problem().is_none());
        // The weights are there once.
        assert!(Fit { clips_count: 2, ..fit(4, 18, "denoise") }.warning().is_none());
        let warning = Fit { clips_count: 2, ..fit(4, 17, "denoise") }.warning().unwrap();
        assert!(warning.starts_with("9.0 GB are free for the transformer's weights of 10.0 GB"), "{warning}");
    }

    #[test]
    fn weights_that_must_be_read_again_are_remarked() {
        assert!(fit(4, 13, "denoise").remark().contains("read weights from the disk again"));
        assert!(!fit(4, 14, "denoise").remark().contains("disk again"));
        assert!(fit(4, 3, "denoise").remark().contains("are free"));
    }
}
