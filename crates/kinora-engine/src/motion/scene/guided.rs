//! The guided filter: smooths a map while its edges follow those of a colour picture.
//!
//! Source: He, Sun, Tang, "Guided image filtering", ECCV 2010; the coefficients may be computed on a small
//! grid and applied on a large one (He, Sun, "Fast guided filter", 2015).

use super::color::Planes;
use super::map::Map;

/// A guide picture with its window statistics, ready for any number of maps of its size.
#[derive(Debug)]
pub(crate) struct Guide<'a> {
    planes: &'a Planes,
    radius: usize,
    mean: Planes,
    /// Inverse of the regularised colour covariance: rr, rg, rb, gg, gb, bb.
    inverse: [Map; 6],
}

/// Per cell, the affine map from guide colour to filtered value.
#[derive(Debug)]
pub(crate) struct Affine {
    pub(crate) slope: Planes,
    pub(crate) offset: Map,
}

impl<'a> Guide<'a> {
    /// `epsilon` is the variance (of 0..1 colours) below which a window counts as flat.
    pub(crate) fn new(planes: &'a Planes, radius: usize, epsilon: f32) -> Self {
        let mean = planes.each(|p| p.box_blurred(radius));
        let moment = |a: usize, b: usize| {
            let product = planes.0[a].zip(&planes.0[b], |u, v| u * v).box_blurred(radius);
            let (ma, mb) = (&mean.0[a], &mean.0[b]);
            Map::from_rows(product.width, product.height, |y, out| {
                for (x, o) in out.iter_mut().enumerate() {
                    *o = product.row(y)[x] - ma.row(y)[x] * mb.row(y)[x] + if a == b { epsilon } else { 0.0 };
                }
            })
        };
        let mut inverse =
            [moment(0, 0), moment(0, 1), moment(0, 2), moment(1, 1), moment(1, 2), moment(2, 2)];
        invert(&mut inverse);
        Self { planes, radius, mean, inverse }
    }

    /// The smoothed affine coefficients of `map`.
    pub(crate) fn affine(&self, map: &Map) -> Affine {
        let mean = map.box_blurred(self.radius);
        let covariance: Vec<Map> = (0..3)
            .map(|c| {
                let product = self.planes.0[c].zip(map, |u, v| u * v).box_blurred(self.radius);
                let guide_mean = &self.mean.0[c];
                Map::from_rows(map.width, map.height, |y, out| {
                    for (x, o) in out.iter_mut().enumerate() {
                        *o = product.row(y)[x] - guide_mean.row(y)[x] * mean.row(y)[x];
                    }
                })
            })
            .collect();
        let slope = Planes([0, 1, 2].map(|c| {
            let [i, j, k] = [[0, 1, 2], [1, 3, 4], [2, 4, 5]][c];
            Map::from_rows(map.width, map.height, |y, out| {
                for (x, o) in out.iter_mut().enumerate() {
                    *o = self.inverse[i].row(y)[x] * covariance[0].row(y)[x]
                        + self.inverse[j].row(y)[x] * covariance[1].row(y)[x]
                        + self.inverse[k].row(y)[x] * covariance[2].row(y)[x];
                }
            })
        }));
        let offset = Map::from_rows(map.width, map.height, |y, out| {
            for (x, o) in out.iter_mut().enumerate() {
                let i = y * map.width + x;
                let (s, m) = (slope.at(i), self.mean.at(i));
                *o = mean.data[i] - s[0] * m[0] - s[1] * m[1] - s[2] * m[2];
            }
        });
        Affine { slope: slope.each(|p| p.box_blurred(self.radius)), offset: offset.box_blurred(self.radius) }
    }

    /// The filtered map.
    pub(crate) fn filter(&self, map: &Map) -> Map {
        self.affine(map).apply(self.planes)
    }
}

impl Affine {
    /// The filtered map under a guide of the coefficients' size.
    pub(crate) fn apply(&self, guide: &Planes) -> Map {
        Map::from_rows(self.offset.width, self.offset.height, |y, out| {
            for (x, o) in out.iter_mut().enumerate() {
                let i = y * self.offset.width + x;
                let (s, g) = (self.slope.at(i), guide.at(i));
                *o = s[0] * g[0] + s[1] * g[1] + s[2] * g[2] + self.offset.data[i];
            }
        })
    }
}

/// Inverts symmetric 3x3 matrices in place, cell by cell. They are positive definite: epsilon is on the diagonal.
fn invert(m: &mut [Map; 6]) {
    for i in 0..m[0].data.len() {
        let [rr, rg, rb, gg, gb, bb] = [0, 1, 2, 3, 4, 5].map(|k| m[k].data[i]);
        let cofactors = [
            gg * bb - gb * gb,
            gb * rb - rg * bb,
            rg * gb - gg * rb,
            rr * bb - rb * rb,
            rb * rg - rr * gb,
            rr * gg - rg * rg,
        ];
        let determinant = rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2];
        let scale = if determinant.abs() > 1e-20 { 1.0 / determinant } else { 0.0 };
        for k in 0..6 {
            m[k].data[i] = cofactors[k] * scale;
        }
    }
}
