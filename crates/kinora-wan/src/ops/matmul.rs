//! Matrix products on slices: a safe face for the crate `gemm`, which finds the widest vectors the machine has.

#![allow(unsafe_code)]

use gemm::Parallelism;

/// A matrix of `rows` by `columns` in `numbers`; neighbours in a row lie `column_stride` apart, in a column `row_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a> {
    pub numbers: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Mat<'a> {
    /// A matrix whose rows lie `row_stride` apart.
    pub fn rows(numbers: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { numbers, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same numbers, rows taken for columns.
    pub fn transposed(self) -> Self {
        Self {
            numbers: self.numbers,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A matrix to write; its rows lie `row_stride` apart.
#[derive(Debug)]
pub struct MatMut<'a> {
    pub numbers: &'a mut [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
}

/// How many threads may work on one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling one.
    One,
    /// All of the pool's.
    All,
}

/// `out = keep * out + scale * (left * right)`; with `keep` 0 what stands in `out` is never read.
pub fn multiply_add(
    out: &mut MatMut<'_>,
    keep: f32,
    left: Mat<'_>,
    right: Mat<'_>,
    scale: f32,
    threads: Threads,
) {
    assert!(
        out.rows == left.rows && left.columns == right.rows && out.columns == right.columns,
        "the shapes of a product fit: {}x{} is not {}x{} by {}x{}",
        out.rows,
        out.columns,
        left.rows,
        left.columns,
        right.rows,
        right.columns,
    );
    let inside = |length: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize| {
        rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < length
    };
    assert!(out.columns <= out.row_stride || out.rows <= 1, "rows to be written do not overlap");
    assert!(inside(out.numbers.len(), out.rows, out.columns, out.row_stride, 1), "the product has room");
    for side in [left, right] {
        assert!(
            inside(side.numbers.len(), side.rows, side.columns, side.row_stride, side.column_stride),
            "a matrix lies in its slice"
        );
    }
    let threads = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: the assertions above hold every element of all three inside its slice; `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            left.columns,
            out.numbers.as_mut_ptr(),
            1,
            out.row_stride as isize,
            keep != 0.0,
            left.numbers.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.numbers.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            threads,
        );
    }
}
