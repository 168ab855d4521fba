//! Where products go: columns of a matrix, which one thread fills while others fill those beside them.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::Pair;
use super::kernel::{self, COLUMNS, ROWS};

/// Some columns of a matrix, all of its rows. Strips of one matrix never share a number, so they may be filled side by side.
#[derive(Debug)]
pub(crate) struct Strip<'a> {
    /// The first row's first number.
    start: *mut f32,
    rows: usize,
    columns: usize,
    /// From row to row.
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a strip alone reaches its numbers, as a `&mut [f32]` does.
unsafe impl Send for Strip<'_> {}

/// What is multiplied for a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors<'a> {
    /// A panel of rows, `[pairs, ROWS]`.
    pub left: &'a [Pair],
    /// A panel of columns, `[pairs, COLUMNS]`.
    pub right: &'a [Pair],
    /// What will be read soon and lies far from the processor: it is fetched meanwhile, as far as there is time.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "the plain loop leaves that to the processor")
    )]
    pub next: &'a [Pair],
}

/// What sums are added to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Before<'a> {
    Nothing,
    /// The same numbers for every row, at least as many as the tile has columns.
    Row(&'a [f32]),
    /// What stands there.
    There,
}

impl<'a> Strip<'a> {
    /// The columns `columns` of a matrix whose rows are `stride` long.
    pub(crate) fn of(matrix: &'a mut [f32], stride: usize, columns: Range<usize>) -> Self {
        assert!(columns.end <= stride && matrix.len().is_multiple_of(stride), "columns lie in their matrix");
        let rows = matrix.len() / stride;
        // SAFETY: assured by the first row being that long; without a row nothing is ever reached.
        let start = unsafe { matrix.as_mut_ptr().add(if rows == 0 { 0 } else { columns.start }) };
        Self { start, rows, columns: columns.len(), stride, matrix: PhantomData }
    }

    /// A matrix of rows of `stride` numbers in strips of `width` columns; the last may have fewer.
    pub(crate) fn split(matrix: &'a mut [f32], stride: usize, width: usize) -> Vec<Self> {
        let whole = Self::of(matrix, stride, 0..stride);
        let strips = (0..stride).step_by(width).map(|first| Self {
            // Wrapping, as a matrix may have no rows.
            start: whole.start.wrapping_add(first),
            columns: width.min(stride - first),
            ..whole
        });
        strips.collect()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Fills the tile from `row` and `column` on, cut off at the strip's edges, with `scale` times the factors'
    /// sums, added to `before`.
    pub(crate) fn multiply(
        &mut self,
        [row, column]: [usize; 2],
        factors: Factors<'_>,
        scale: f32,
        before: Before<'_>,
    ) {
        assert!(row < self.rows && column < self.columns, "a tile lies in its strip");
        let tile = Tile {
            // SAFETY: the tile's first number lies in the strip, as asserted.
            start: unsafe { self.start.add(row * self.stride + column) },
            size: [ROWS.min(self.rows - row), COLUMNS.min(self.columns - column)],
            stride: self.stride,
        };
        if let Before::Row(numbers) = before {
            assert!(numbers.len() >= tile.size[1], "there is a number for every column");
        }
        // SAFETY: the tile's numbers are this strip's, which is borrowed alone.
        unsafe { kernel::multiply(tile, factors, scale, before) };
    }
}

/// At most `ROWS` by `COLUMNS` numbers of a strip.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub start: *mut f32,
    /// Rows and columns.
    pub size: [usize; 2],
    pub stride: usize,
}
