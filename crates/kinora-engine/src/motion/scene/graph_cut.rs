//! The cheapest division of a grid into two sides.
//!
//! Always true: the result is an exact minimum of the integer energy given; ties go to the sink's side.
//! Source: Boykov, Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for energy
//! minimization in vision", TPAMI 2004, with the distance and time marks of its section 3.2.

use std::collections::VecDeque;

/// Steps to the eight neighbours (x, y); `d ^ 1` is the opposite of `d`.
pub(crate) const NEIGHBOURS: [(isize, isize); 8] =
    [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (-1, 1), (1, -1)];

/// A parent that is the terminal itself.
const TERMINAL: u8 = 8;
/// No parent any more: to be adopted.
const ORPHAN: u8 = 9;
/// In neither tree.
const FREE: u8 = 10;

/// Residual capacities of an 8-connected grid with a rim of unconnected cells around it.
#[derive(Debug)]
pub(crate) struct GridGraph {
    width: usize,
    stride: usize,
    offsets: [isize; 8],
    /// Per cell the capacity towards each neighbour.
    links: Vec<[i32; 8]>,
    /// Capacity from the source (positive) or to the sink (negative).
    terminals: Vec<i32>,
    trees: Vec<Cell>,
    active: VecDeque<u32>,
    orphans: VecDeque<u32>,
    time: u32,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    parent: u8,
    of_sink: bool,
    queued: bool,
    stamp: u32,
    depth: u32,
}

impl GridGraph {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        let stride = width + 2;
        let cells = stride * (height + 2);
        let free = Cell { parent: FREE, of_sink: false, queued: false, stamp: 0, depth: 0 };
        Self {
            width,
            stride,
            offsets: NEIGHBOURS.map(|(dx, dy)| dy * stride as isize + dx),
            links: vec![[0; 8]; cells],
            terminals: vec![0; cells],
            trees: vec![free; cells],
            active: VecDeque::new(),
            orphans: VecDeque::new(),
            time: 0,
        }
    }

    /// Adds what it costs to put cell `i` on the sink's side; negative for the source's side.
    pub(crate) fn add_terminal(&mut self, i: usize, cost: i32) {
        let cell = self.padded(i);
        self.terminals[cell] += cost;
    }

    /// Adds what it costs to part cell `i` from its neighbour in `direction` (an index into [`NEIGHBOURS`]),
    /// which must lie within the grid.
    pub(crate) fn add_link(&mut self, i: usize, direction: usize, cost: i32) {
        let cell = self.padded(i);
        let other = self.neighbour(cell, direction);
        self.links[cell][direction] += cost;
        self.links[other][direction ^ 1] += cost;
    }

    /// Whether each cell lies on the source's side of a minimal cut.
    pub(crate) fn cut(mut self) -> Vec<bool> {
        self.plant();
        let mut current = None;
        while let Some(cell) = current.take().or_else(|| self.next_active()) {
            let meeting = self.grow(cell);
            self.time += 1;
            if let Some((from, direction)) = meeting {
                self.augment(from, direction);
                self.adopt();
                if self.trees[cell].parent != FREE {
                    current = Some(cell);
                }
            }
        }
        let height = self.trees.len() / self.stride - 2;
        (0..self.width * height)
            .map(|i| {
                let cell = &self.trees[self.padded(i)];
                cell.parent != FREE && !cell.of_sink
            })
            .collect()
    }

    fn padded(&self, i: usize) -> usize {
        (i / self.width + 1) * self.stride + i % self.width + 1
    }

    fn neighbour(&self, cell: usize, direction: usize) -> usize {
        cell.wrapping_add_signed(self.offsets[direction])
    }

    fn plant(&mut self) {
        for cell in 0..self.trees.len() {
            let terminal = self.terminals[cell];
            if terminal != 0 {
                let tree = &mut self.trees[cell];
                tree.parent = TERMINAL;
                tree.of_sink = terminal < 0;
                tree.depth = 1;
                self.activate(cell);
            }
        }
    }

    fn activate(&mut self, cell: usize) {
        if !self.trees[cell].queued {
            self.trees[cell].queued = true;
            self.active.push_back(cell as u32);
        }
    }

    fn next_active(&mut self) -> Option<usize> {
        while let Some(cell) = self.active.pop_front() {
            let cell = cell as usize;
            self.trees[cell].queued = false;
            if self.trees[cell].parent != FREE {
                return Some(cell);
            }
        }
        None
    }

    /// What can still flow between a cell of a tree and its neighbour, in the tree's direction.
    fn outward(&self, cell: usize, direction: usize, of_sink: bool) -> i32 {
        if of_sink {
            self.links[self.neighbour(cell, direction)][direction ^ 1]
        } else {
            self.links[cell][direction]
        }
    }

    /// Takes in free neighbours; returns the link, seen from the source's side, where the trees meet.
    fn grow(&mut self, cell: usize) -> Option<(usize, usize)> {
        let here = self.trees[cell];
        for direction in 0..8 {
            if self.outward(cell, direction, here.of_sink) == 0 {
                continue;
            }
            let other = self.neighbour(cell, direction);
            let there = self.trees[other];
            if there.parent != FREE && there.of_sink != here.of_sink {
                return Some(if here.of_sink { (other, direction ^ 1) } else { (cell, direction) });
            }
            let shorter = there.stamp <= here.stamp && there.depth > here.depth;
            if there.parent == FREE || shorter {
                let tree = &mut self.trees[other];
                tree.of_sink = here.of_sink;
                tree.parent = (direction ^ 1) as u8;
                tree.stamp = here.stamp;
                tree.depth = here.depth + 1;
                if there.parent == FREE {
                    self.activate(other);
                }
            }
        }
        None
    }

    /// Sends what fits along the path through the link; cells whose link to the parent fills up are orphans.
    fn augment(&mut self, from: usize, direction: usize) {
        let to = self.neighbour(from, direction);
        let flow = self.links[from][direction].min(self.room(from)).min(self.room(to));
        self.links[from][direction] -= flow;
        self.links[to][direction ^ 1] += flow;
        for start in [from, to] {
            let of_sink = self.trees[start].of_sink;
            let mut cell = start;
            loop {
                let parent = self.trees[cell].parent;
                if parent == TERMINAL {
                    self.terminals[cell] += if of_sink { flow } else { -flow };
                    if self.terminals[cell] == 0 {
                        self.trees[cell].parent = ORPHAN;
                        self.orphans.push_front(cell as u32);
                    }
                    break;
                }
                let up = parent as usize;
                let next = self.neighbour(cell, up);
                let signed = if of_sink { -flow } else { flow };
                self.links[cell][up] += signed;
                self.links[next][up ^ 1] -= signed;
                let left = if of_sink { self.links[cell][up] } else { self.links[next][up ^ 1] };
                if left == 0 {
                    self.trees[cell].parent = ORPHAN;
                    self.orphans.push_front(cell as u32);
                }
                cell = next;
            }
        }
    }

    /// How much can flow between a cell and its tree's terminal.
    fn room(&self, mut cell: usize) -> i32 {
        let of_sink = self.trees[cell].of_sink;
        let mut room = i32::MAX;
        loop {
            let parent = self.trees[cell].parent;
            if parent == TERMINAL {
                return room.min(self.terminals[cell].abs());
            }
            let up = parent as usize;
            let next = self.neighbour(cell, up);
            room = room.min(if of_sink { self.links[cell][up] } else { self.links[next][up ^ 1] });
            cell = next;
        }
    }

    /// Finds each orphan a parent that still reaches the terminal, the nearest one, or frees it.
    fn adopt(&mut self) {
        while let Some(orphan) = self.orphans.pop_front() {
            let cell = orphan as usize;
            let of_sink = self.trees[cell].of_sink;
            let mut best: Option<(u32, usize)> = None;
            for direction in 0..8 {
                let other = self.neighbour(cell, direction);
                let there = self.trees[other];
                if there.parent == FREE
                    || there.of_sink != of_sink
                    || self.inward(cell, direction, of_sink) == 0
                {
                    continue;
                }
                if let Some(depth) = self.depth_of(other)
                    && best.is_none_or(|(least, _)| depth < least)
                {
                    best = Some((depth, direction));
                }
            }
            if let Some((depth, direction)) = best {
                let tree = &mut self.trees[cell];
                tree.parent = direction as u8;
                tree.stamp = self.time;
                tree.depth = depth + 1;
            } else {
                self.free(cell, of_sink);
            }
        }
    }

    /// What can still flow from a neighbour (towards the sink: to it) in the tree's direction.
    fn inward(&self, cell: usize, direction: usize, of_sink: bool) -> i32 {
        if of_sink {
            self.links[cell][direction]
        } else {
            self.links[self.neighbour(cell, direction)][direction ^ 1]
        }
    }

    /// Steps from a cell to its terminal; None when the way ends at an orphan. Marks the way.
    fn depth_of(&mut self, start: usize) -> Option<u32> {
        let mut depth = 0;
        let mut cell = start;
        loop {
            let tree = self.trees[cell];
            if tree.stamp == self.time {
                depth += tree.depth;
                break;
            }
            depth += 1;
            match tree.parent {
                TERMINAL => {
                    self.trees[cell].stamp = self.time;
                    self.trees[cell].depth = 1;
                    break;
                }
                ORPHAN | FREE => return None,
                up => cell = self.neighbour(cell, up as usize),
            }
        }
        let mut cell = start;
        let mut left = depth;
        while self.trees[cell].stamp != self.time {
            let up = self.trees[cell].parent as usize;
            self.trees[cell].stamp = self.time;
            self.trees[cell].depth = left;
            left -= 1;
            cell = self.neighbour(cell, up);
        }
        Some(depth)
    }

    fn free(&mut self, cell: usize, of_sink: bool) {
        self.trees[cell].parent = FREE;
        for direction in 0..8 {
            let other = self.neighbour(cell, direction);
            let there = self.trees[other];
            if there.parent == FREE || there.of_sink != of_sink {
                continue;
            }
            if self.inward(cell, direction, of_sink) != 0 {
                self.activate(other);
            }
            if there.parent as usize == direction ^ 1 {
                self.trees[other].parent = ORPHAN;
                self.orphans.push_back(other as u32);
            }
        }
    }
}
