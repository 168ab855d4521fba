//! Counter-based randomness: a number is a pure function of (seed, stream name, index).
//!
//! Always true: nothing here has state that a thread could race for, so results are the same at any number
//! of threads and in any order of evaluation. Streams keep unrelated uses apart, so adding one never shifts
//! the numbers of another.
//! Source: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3"
//! (SC 2011); the tests hold the known answers that its authors publish.

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One stream of random numbers, addressed by index.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    key: [u32; 2],
    stream: u64,
}

impl Noise {
    /// The stream called `name` under `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], stream: fnv1a(name.as_bytes()) }
    }

    /// 128 random bits.
    pub(crate) fn bits(&self, index: u64) -> [u32; 4] {
        let counter = [index as u32, (index >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        philox(counter, self.key)
    }

    /// Uniform in 0..1, 1 excluded.
    pub(crate) fn unit(&self, index: u64) -> f32 {
        to_unit(self.bits(index)[0])
    }

    /// Four independent numbers, uniform in 0..1.
    pub(crate) fn units(&self, index: u64) -> [f32; 4] {
        self.bits(index).map(to_unit)
    }

    /// Mean 0, standard deviation 1 (Box-Muller).
    pub fn normal(&self, index: u64) -> f32 {
        let [a, b, ..] = self.units(index);
        (-2.0 * (1.0 - a).ln()).sqrt() * (std::f32::consts::TAU * b).cos()
    }

    /// Reads the stream from its beginning.
    pub(crate) fn draws(&self) -> Draws {
        Draws { noise: *self, index: 0 }
    }
}

/// A stream read in order.
#[derive(Debug, Clone)]
pub(crate) struct Draws {
    noise: Noise,
    index: u64,
}

impl Draws {
    fn next_index(&mut self) -> u64 {
        self.index += 1;
        self.index - 1
    }

    /// Uniform in 0..1.
    pub(crate) fn unit(&mut self) -> f32 {
        let index = self.next_index();
        self.noise.unit(index)
    }

    /// Uniform in `low..high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// -1 or 1.
    pub(crate) fn sign(&mut self) -> f32 {
        if self.unit() < 0.5 { -1.0 } else { 1.0 }
    }
}

fn to_unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        assert_eq!(
            philox([0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0]),
            [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
        );
    }

    #[test]
    fn uniform_and_normal_numbers_have_their_moments() {
        let noise = Noise::new(7, "moments");
        let n = 20_000;
        let mean = |f: &dyn Fn(u64) -> f32| (0..n).map(f).sum::<f32>() / n as f32;
        assert!((mean(&|i| noise.unit(i)) - 0.5).abs() < 0.01);
        assert!(mean(&|i| noise.normal(i)).abs() < 0.03);
        assert!((mean(&|i| noise.normal(i).powi(2)) - 1.0).abs() < 0.05);
    }

    #[test]
    fn seeds_and_streams_differ() {
        let first = |seed, name| Noise::new(seed, name).bits(0);
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(1 | 1 << 40, "a"));
    }
}
