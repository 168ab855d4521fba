use super::*;

#[test]
fn a_tile_repeats_without_a_seam() {
    let tile = Tile::new(Noise::new(1, "tile"), 4, 4);
    let side = Tile::SIDE as f32;
    for k in 0..50 {
        let (x, y) = (k as f32 * 7.3, k as f32 * 3.1);
        assert!((tile.at(x, y) - tile.at(x + side, y - side)).abs() < 1e-3);
    }
    let step = |x: f32| (tile.at(x + 1.0, 9.0) - tile.at(x, 9.0)).abs();
    let inner = (0..255).map(|x| step(x as f32)).fold(0.0, f32::max);
    assert!(step(side - 1.0) <= inner * 1.5 + 0.05, "a jump where the tile repeats");
}
