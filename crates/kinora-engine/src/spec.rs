//! What to make, in numbers, already valid. Pure data: the API builds it, the engines read it.

/// Clip lengths that the service offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClipDuration {
    #[default]
    FiveSeconds,
    TenSeconds,
}

impl ClipDuration {
    pub fn seconds(self) -> u32 {
        match self {
            Self::FiveSeconds => 5,
            Self::TenSeconds => 10,
        }
    }

    /// The clip length of `seconds`, where the service offers it.
    pub fn from_seconds(seconds: u32) -> Option<Self> {
        match seconds {
            5 => Some(Self::FiveSeconds),
            10 => Some(Self::TenSeconds),
            _ => None,
        }
    }
}

/// One clip to make.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateSpec {
    /// What should happen, in words; may be empty.
    pub prompt: String,
    /// What should not happen, in words; may be empty.
    pub negative_prompt: String,
    /// How strictly to follow the prompt, 0 (free) to 1 (strict).
    pub cfg_scale: f32,
    pub duration: ClipDuration,
    /// The only source of randomness.
    pub seed: u64,
}

impl GenerateSpec {
    /// The largest seed: the largest integer that every JSON client holds exactly (2^53 - 1).
    pub const SEED_MAX: u64 = (1 << 53) - 1;
    /// The longest prompt and negative prompt, in characters.
    pub const PROMPT_CHARS_MAX: usize = 2500;
}

impl Default for GenerateSpec {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            cfg_scale: 0.5,
            duration: ClipDuration::default(),
            seed: 0,
        }
    }
}
