//! The stages alone, against results that can be told by hand.

use super::super::color::{Planes, hsv, lab};
use super::super::graph_cut::{GridGraph, NEIGHBOURS};
use super::super::guided::Guide;
use super::super::map::Map;
use super::super::morphology::{Components, dilated, distance, eroded, hull_area};
use super::super::patch_match::{Hole, complete};
use super::super::pull_push::filled;
use super::noise;

/// A whole number in `-range..=range`.
fn pick(i: usize, seed: u32, range: f32) -> i32 {
    (noise(i as u32, 7, seed) * range).round() as i32
}

#[test]
fn a_cut_is_as_cheap_as_the_cheapest_of_all() {
    const WIDTH: usize = 4;
    const HEIGHT: usize = 3;
    for seed in 0..60 {
        let terminals: Vec<i32> = (0..WIDTH * HEIGHT).map(|i| pick(i, seed, 20.0)).collect();
        let mut links = Vec::new();
        for i in 0..WIDTH * HEIGHT {
            for direction in [0usize, 2, 4, 6] {
                let (dx, dy) = NEIGHBOURS[direction];
                let (x, y) = ((i % WIDTH) as isize + dx, (i / WIDTH) as isize + dy);
                if x >= 0 && x < WIDTH as isize && y < HEIGHT as isize {
                    let cost = pick(i * 8 + direction, seed + 100, 9.0).abs();
                    links.push((i, y as usize * WIDTH + x as usize, direction, cost));
                }
            }
        }
        let energy = |source: &dyn Fn(usize) -> bool| -> i32 {
            let sides: i32 = terminals
                .iter()
                .enumerate()
                .map(|(i, &t)| if source(i) { (-t).max(0) } else { t.max(0) })
                .sum();
            sides + links.iter().filter(|l| source(l.0) != source(l.1)).map(|l| l.3).sum::<i32>()
        };
        let mut graph = GridGraph::new(WIDTH, HEIGHT);
        terminals.iter().enumerate().for_each(|(i, &t)| graph.add_terminal(i, t));
        links.iter().for_each(|&(i, _, direction, cost)| graph.add_link(i, direction, cost));
        let cut = graph.cut();
        let least =
            (0..1usize << (WIDTH * HEIGHT)).map(|bits| energy(&|i| bits >> i & 1 == 1)).min().unwrap();
        assert_eq!(energy(&|i| cut[i]), least, "seed {seed}");
    }
}

#[test]
fn a_guided_map_takes_over_the_guides_edge() {
    let guide = Planes([0, 1, 2].map(|c| {
        Map::from_fn(64, 32, |x, y| if x < 30 { 0.2 } else { 0.8 } + 0.01 * noise(x as u32, y as u32, c))
    }));
    // A mask whose edge is 3 pixels off and soft.
    let rough = Map::from_fn(64, 32, |x, _| ((x as f32 - 30.0) / 6.0).clamp(0.0, 1.0));
    let sharp = Guide::new(&guide, 8, 1e-4).filter(&rough);
    let step = |m: &Map| m.at(31, 16) - m.at(28, 16);
    assert!(step(&sharp) > 0.45 && step(&rough) < 0.2, "{} {}", step(&sharp), step(&rough));
    let flat = Guide::new(&guide, 8, 1e-4).filter(&Map::filled(64, 32, 0.4));
    assert!(flat.data.iter().all(|v| (v - 0.4).abs() < 1e-3));
}

#[test]
fn blurs_keep_the_mean_and_have_the_width_asked_for() {
    for sigma in [1.0f32, 2.5, 8.0, 20.0] {
        let mut spike = Map::filled(201, 201, 0.0);
        spike.data[100 * 201 + 100] = 1.0;
        let blurred = spike.blurred(sigma);
        let sum: f32 = blurred.data.iter().sum();
        let variance: f32 =
            blurred.data.iter().enumerate().map(|(i, v)| v * ((i % 201) as f32 - 100.0).powi(2)).sum::<f32>()
                / sum;
        assert!((sum - 1.0).abs() < 0.01, "sigma {sigma}: sum {sum}");
        assert!((variance.sqrt() / sigma - 1.0).abs() < 0.12, "sigma {sigma}: {}", variance.sqrt());
    }
}

#[test]
fn pull_push_keeps_what_is_known_and_stays_within_it() {
    let map = Map::from_fn(67, 41, |x, y| noise(x as u32, y as u32, 1));
    let weight = Map::from_fn(67, 41, |x, _| f32::from(u8::from(!(20..50).contains(&x))));
    let full = filled(&[&map], &weight).remove(0);
    for i in 0..map.data.len() {
        assert!(full.data[i].abs() <= 1.0);
        assert!(weight.data[i] == 0.0 || (full.data[i] - map.data[i]).abs() < 1e-5);
    }
    let nothing = filled(&[&map], &Map::filled(67, 41, 0.0)).remove(0);
    assert!(nothing.data.iter().all(|&v| v == 0.0));
}

#[test]
fn a_hole_in_stripes_is_filled_with_stripes_and_never_from_what_is_to_be_avoided() {
    let stripe = |x: usize| if (x / 6).is_multiple_of(2) { 0.25 } else { 0.75 };
    let hole =
        Map::from_fn(160, 120, |x, y| f32::from(u8::from((60..100).contains(&x) && (40..80).contains(&y))));
    let avoid = Map::from_fn(160, 120, |x, _| f32::from(u8::from(x >= 130)));
    let picture = Planes([0, 1, 2].map(|c| {
        Map::from_fn(160, 120, |x, y| match () {
            () if hole.at(x, y) > 0.5 => 0.5,
            () if avoid.at(x, y) > 0.5 => f32::from(u8::from(c == 0)),
            () => stripe(x),
        })
    }));
    let plain = Hole { fill: &hole, avoid: Some(&avoid), row_penalty: 0.0, column_penalty: 0.0 };
    let full = complete(&picture, &plain).picture;
    let (mut error, mut cells) = (0.0f32, 0.0f32);
    for i in 0..hole.data.len() {
        if hole.data[i] < 0.5 {
            assert_eq!(full.at(i), picture.at(i));
            continue;
        }
        let [r, g, b] = full.at(i);
        assert!((r - g).abs() < 0.02 && (r - b).abs() < 0.02, "red was copied: {r} {g} {b}");
        error += (r - stripe(i % 160)).abs();
        cells += 1.0;
    }
    assert!(error / cells < 0.05, "mean error {}", error / cells);
}

#[test]
fn shapes_are_measured() {
    let square = |i: usize| (3..8).contains(&(i % 12)) && (2..7).contains(&(i / 12));
    let parts = Components::of(12, 10, |i| square(i) || i == 119);
    assert_eq!(parts.sizes, [94, 25, 1]);
    assert_eq!(parts.bounds(12)[1], [3, 2, 8, 7]);
    assert_eq!(hull_area(12, 10, square), 25.0);
    let d = distance(12, 10, square);
    assert_eq!((d.at(3, 2), d.at(5, 4), d.at(0, 0)), (1.0, 3.0, 0.0));
    let mask = Map::from_fn(12, 10, |x, y| f32::from(u8::from(square(y * 12 + x))));
    assert_eq!(eroded(&dilated(&mask, 1), 1), mask);
    assert_eq!(eroded(&mask, 2).data.iter().sum::<f32>(), 1.0);
}

#[test]
fn colours_convert_as_the_standards_say() {
    let pixel = |rgb: [f32; 3]| Planes(rgb.map(|v| Map::filled(1, 1, v / 255.0)));
    let near = |got: [f32; 3], want: [f32; 3], within: f32| {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < within), "{got:?} for {want:?}");
    };
    near(lab(&pixel([255.0, 255.0, 255.0])).at(0), [100.0, 0.0, 0.0], 0.05);
    near(lab(&pixel([255.0, 0.0, 0.0])).at(0), [53.24, 80.09, 67.20], 0.1);
    near(lab(&pixel([0.0, 0.0, 255.0])).at(0), [32.30, 79.19, -107.86], 0.1);
    near(hsv(&pixel([0.0, 255.0, 128.0])).at(0), [150.1, 1.0, 1.0], 0.1);
    near(hsv(&pixel([90.0, 90.0, 90.0])).at(0), [0.0, 0.0, 0.353], 0.01);
}
