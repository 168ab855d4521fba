use super::solve::place;
use super::*;

fn map(width: usize, height: usize) -> Map {
    Map::from_fn(width, height, |x, y| ((x as f32 * 0.11).sin() + (y as f32 * 0.07).cos()) * 0.2 + 0.5)
}

#[test]
fn a_view_at_rest_moves_nothing() {
    let frame = Frame { width_px: 64, height_px: 32, margin_x_px: 8, margin_y_px: 4 };
    let disparity = map(20, 10);
    let layer = Layer { disparity: &disparity, movement: None, extra: &[] };
    let grid = Grid::solve(&frame, &View::new(&Pose::REST, 64), &layer);
    let (mut row, mut cells) = (vec![1.0; 64], Vec::new());
    for y in 0..32 {
        for plane in [Grid::DX, Grid::DY] {
            grid.row(plane, y, &mut cells, &mut row);
            assert!(row.iter().all(|&offset| offset == 0.0));
        }
    }
}

#[test]
fn a_solved_source_satisfies_its_equation() {
    let frame = Frame { width_px: 320, height_px: 160, margin_x_px: 32, margin_y_px: 32 };
    let disparity = map(96, 56);
    let pose = Pose { tx: 0.09, ty: -0.02, tz: 0.2, px: 0.03, roll: 0.05, zoom: 0.02, ..Pose::REST };
    let view = View::new(&pose, 320);
    let near = |x: f32, y: f32| {
        let (u, v) = frame.quarter(x, y);
        disparity.bilinear(u, v)
    };
    for (x, y) in [(-150.0, 70.0), (0.0, 0.0), (140.0, -60.0)] {
        let (qx, qy) = view.source(x, y, near);
        let d = nearness(near(qx, qy));
        let scale = 1.0 / 1.02;
        let sx = scale * (0.05f32.cos() * x + 0.05f32.sin() * y) + 0.03 * 320.0;
        let sy = scale * (0.05f32.cos() * y - 0.05f32.sin() * x);
        assert!((qx - (sx * (1.0 - 0.2 * d) + d * 0.09 * 320.0)).abs() < 0.05);
        assert!((qy - (sy * (1.0 - 0.2 * d) - d * 0.02 * 320.0)).abs() < 0.05);
    }
}

#[test]
fn every_cell_of_a_grid_holds_its_source() {
    // Neither whole blocks of cells nor a view that stays on the map.
    let frame = Frame { width_px: 112, height_px: 48, margin_x_px: 8, margin_y_px: 8 };
    let disparity = map(32, 16);
    let sway = disparity.map(|v| 3.0 * v);
    let layer = Layer { disparity: &disparity, movement: Some((&sway, &disparity)), extra: &[&sway] };
    let pose = Pose { tx: 0.15, ty: -0.1, tz: 0.2, px: 0.08, roll: 0.1, zoom: 0.02, ..Pose::REST };
    let view = View::new(&pose, 112);
    let grid = Grid::solve(&frame, &view, &layer);
    let (cx, cy) = frame.centre();
    for (row, column) in (0..grid.rows).flat_map(|row| (0..grid.columns).map(move |column| (row, column))) {
        let (x, y) = (place(column) - cx, place(row) - cy);
        let at = |map: &Map, x: f32, y: f32| {
            let (u, v) = frame.quarter(x, y);
            map.bilinear(u, v)
        };
        let (qx, qy) = view.source(x, y, |x, y| at(&disparity, x, y));
        let want = [qx - x + at(&sway, qx, qy), qy - y + at(&disparity, qx, qy), at(&sway, qx, qy)];
        for (plane, want) in want.into_iter().enumerate() {
            let got = grid.cells[(row * grid.planes_count + plane) * grid.columns + column];
            assert!((got - want).abs() < 1e-3, "plane {plane} at ({column}, {row}): {got}, not {want}");
        }
    }
}

#[test]
fn a_grid_row_interpolates_linearly() {
    let frame = Frame { width_px: 32, height_px: 16, margin_x_px: 0, margin_y_px: 0 };
    let flat = Map::filled(8, 4, 0.5);
    // The extra map is x + 10 y at its cells' centres, so at output pixel (x, y) too.
    let ramp = Map::from_fn(8, 4, |x, y| (4 * x) as f32 + 1.5 + 10.0 * ((4 * y) as f32 + 1.5));
    let layer = Layer { disparity: &flat, movement: None, extra: &[&ramp] };
    let grid = Grid::solve(&frame, &View::new(&Pose::REST, 32), &layer);
    let (mut row, mut cells) = (vec![0.0; 32], Vec::new());
    for y in 2..14 {
        grid.row(Grid::EXTRA, y, &mut cells, &mut row);
        for (x, value) in row.iter().enumerate().take(30).skip(2) {
            assert!((value - (x as f32 + 10.0 * y as f32)).abs() < 1e-3, "({x}, {y}): {value}");
        }
    }
}
