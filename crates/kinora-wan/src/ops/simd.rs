//! The machine's vector widths, and an exponential that compiles to vectors.
//!
//! Always true: every form of a loop is the same Rust code, compiled for other instructions, so results differ by
//! contraction of multiply and add at most.

/// `e^x` to within about two units in the last place, without branches so that loops over it become vectors.
///
/// Below -87 it is 0 (the true value is no normal number) and above 88 it stays at `e^88`.
/// Source: range reduction by a two-part ln 2 after Cody and Waite; the polynomial is the one of the Cephes library's
/// `expf` (S. Moshier).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and taking away rounds to whole numbers.
    const ROUNDER: f32 = 12_582_912.0;
    let bounded = x.clamp(-87.0, 88.0);
    let whole = (bounded * std::f32::consts::LOG2_E + ROUNDER) - ROUNDER;
    let rest = bounded - whole * LN2_HIGH - whole * LN2_LOW;
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * rest + coefficient;
    }
    let power = f32::from_bits((((whole as i32) + 127) << 23) as u32);
    let value = (sum * rest * rest + rest + 1.0) * power;
    if x < -87.0 { 0.0 } else { value }
}

/// Defines `$name`, which runs its body compiled for the widest vectors that the machine has.
macro_rules! vectorised {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        $visibility fn $name($($argument: $type),*) {
            #[inline(always)]
            fn body($($argument: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
                fn wide($($argument: $type),*) { body($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($argument: $type),*) { body($($argument),*) }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the machine has the features that the function is compiled for.
                    #[allow(unsafe_code)]
                    return unsafe { wide($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    return unsafe { middle($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
pub(super) use vectorised;

#[cfg(test)]
mod tests {
    #[test]
    fn the_exponential_is_right_to_two_units() {
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0;
            let (got, want) = (super::exp(x), f64::from(x).exp());
            let error = (f64::from(got) - want).abs() / want;
            assert!(error < 3e-7, "exp({x}) is {got}, not {want}");
        }
        assert_eq!(super::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(super::exp(0.0), 1.0);
    }
}
