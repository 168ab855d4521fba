use super::*;

#[test]
fn a_move_starts_at_rest_and_ends_complete() {
    for (start, end) in [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0)] {
        let share = eased(start, end, 121);
        assert_eq!(share[0], 0.0);
        assert!((share[120] - 1.0).abs() < 1e-5);
        assert!(share.windows(2).all(|pair| pair[1] >= pair[0]));
        let jerk = share.windows(3).map(|w| (w[2] - 2.0 * w[1] + w[0]).abs()).fold(0.0, f32::max);
        assert!(jerk < 0.005, "{start}..{end}: {jerk}");
    }
}

#[test]
fn a_wander_has_unit_power_and_its_band() {
    let wander = Wander::new(Noise::new(1, "test"), (0.25, 2.6));
    let samples: Vec<f32> = (0..24_000).map(|k| wander.at(k as f32 / 24.0)).collect();
    let power = samples.iter().map(|v| v * v).sum::<f32>() / samples.len() as f32;
    assert!((power - 1.0).abs() < 0.1, "{power}");
}
