//! How memory is asked of the system.
//!
//! Small blocks are glibc's affair. It gives each of up to eight threads a core an arena of its own, and an arena keeps
//! what is freed in it; as many arenas as cores are as fast, and keep less (`docs/PERF.md`). Source: `mallopt(3)`.
//! Large blocks it asks of the system anew each time, which clears every page again as it is first touched. The
//! transformer makes and drops tensors of the same few sizes all the time, so [`Reusing`] can keep them.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static ALLOCATOR: Reusing = Reusing::new();

/// From now on large blocks that are freed are kept for others of their size.
pub fn keep_large_blocks() {
    ALLOCATOR.keep();
}

/// Gives all that is kept back to the system when it goes, as a clip ends, however it ends.
#[derive(Debug)]
pub struct ReleasedAtEnd;

impl Drop for ReleasedAtEnd {
    fn drop(&mut self) {
        ALLOCATOR.release();
    }
}

/// Bounds the arenas of glibc, where that is the allocator and `MALLOC_ARENA_MAX` does not say otherwise. To be called
/// before threads start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn bound_arenas() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: `mallopt` takes two integers, and changes nothing that was allocated before.
    let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::try_from(cores).unwrap_or(i32::MAX)) };
    debug_assert_eq!(is_set, 1, "glibc knows this parameter since 2.10");
}

/// Other allocators have nothing to bound.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_arenas() {}

/// Blocks of this many bytes are large.
const LARGE_BYTES: usize = 8 << 20;
/// Large blocks are whole multiples of this, so that sizes that differ little are one.
const STEP_BYTES: usize = 2 << 20;
/// What the system's allocator gives without being asked, so that zeroed blocks come from the kernel as they are.
const ALIGN: usize = 16;
/// Blocks that are kept at most.
const KEPT_MAX: usize = 64;

/// The system's allocator, which keeps large blocks once it is told to.
///
/// Always true: the bytes that are kept and those in use are together never more than the most that were in use at one time.
#[derive(Debug)]
struct Reusing {
    keeps: AtomicBool,
    blocks: Mutex<Blocks>,
}

/// All sizes in bytes, of large blocks alone.
#[derive(Debug)]
struct Blocks {
    /// Address and size, the longest kept first; an array, since a list would have to be allocated.
    kept: [(usize, usize); KEPT_MAX],
    kept_count: usize,
    kept_bytes: usize,
    used_bytes: usize,
    most_used_bytes: usize,
}

/// The block that serves a large request, or none for a request that is the system's affair.
fn block_of(layout: Layout) -> Option<Layout> {
    if layout.size() < LARGE_BYTES || layout.align() > ALIGN {
        return None;
    }
    Layout::from_size_align(layout.size().checked_next_multiple_of(STEP_BYTES)?, ALIGN).ok()
}

impl Reusing {
    const fn new() -> Self {
        let blocks = Blocks {
            kept: [(0, 0); KEPT_MAX],
            kept_count: 0,
            kept_bytes: 0,
            used_bytes: 0,
            most_used_bytes: 0,
        };
        Self { keeps: AtomicBool::new(false), blocks: Mutex::new(blocks) }
    }

    fn keep(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// # Safety
    /// `address` is a block of `has`, in use, and `size` is another whole multiple of a step.
    unsafe fn resize(&self, address: *mut u8, has: Layout, size: usize) -> *mut u8 {
        let mut blocks = self.blocks();
        blocks.used_bytes -= has.size();
        let most_before = blocks.begin(size);
        drop(blocks);
        // SAFETY: the caller's promise; the block came from the system for this layout.
        let moved = unsafe { System.realloc(address, has, size) };
        if moved.is_null() {
            let mut blocks = self.blocks();
            blocks.take_back(size, most_before);
            blocks.used_bytes += has.size();
        }
        moved
    }

    fn release(&self) {
        let mut blocks = self.blocks();
        blocks.most_used_bytes = blocks.used_bytes;
        blocks.make_room(0);
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks {
    /// A kept block of this size; its numbers are what its last user left there.
    fn take(&mut self, size: usize) -> Option<NonNull<u8>> {
        let at = self.kept[..self.kept_count].iter().rposition(|&(_, kept)| kept == size)?;
        let (address, _) = self.remove(at);
        self.now_used(size);
        NonNull::new(address as *mut u8)
    }

    fn now_used(&mut self, size: usize) {
        self.used_bytes += size;
        self.most_used_bytes = self.most_used_bytes.max(self.used_bytes);
    }

    fn remove(&mut self, at: usize) -> (usize, usize) {
        let (address, size) = self.kept[at];
        self.kept.copy_within(at + 1..self.kept_count, at);
        self.kept_count -= 1;
        self.kept_bytes -= size;
        (address, size)
    }

    /// Gives back what was kept longest until a new block of `size` breaks no promise.
    fn make_room(&mut self, size: usize) {
        let bound = self.most_used_bytes.max(self.used_bytes + size);
        while self.kept_count > 0 && self.used_bytes + size + self.kept_bytes > bound {
            self.give_back_oldest();
        }
    }

    /// Keeps a block that is in use no more, in place of the one kept longest if there are too many.
    fn put(&mut self, address: *mut u8, size: usize) {
        if self.kept_count == KEPT_MAX {
            self.give_back_oldest();
        }
        self.kept[self.kept_count] = (address as usize, size);
        self.kept_count += 1;
        self.kept_bytes += size;
    }

    fn give_back_oldest(&mut self) {
        let (address, size) = self.remove(0);
        if let Ok(block) = Layout::from_size_align(size, ALIGN) {
            // SAFETY: the system gave this block for this layout, and who used it has freed it.
            unsafe { System.dealloc(address as *mut u8, block) };
        }
    }

    /// What a new block of `size` has to be told beforehand; the answer takes it back, should there be none.
    fn begin(&mut self, size: usize) -> usize {
        let most_before = self.most_used_bytes;
        self.make_room(size);
        self.now_used(size);
        most_before
    }

    fn take_back(&mut self, size: usize, most_before: usize) {
        self.used_bytes -= size;
        self.most_used_bytes = most_before.max(self.used_bytes);
    }
}

// SAFETY: every block comes from the system's allocator for the layout that `block_of` names, which depends on the request
// alone; it is given to one user at a time, and goes back with that layout.
unsafe impl GlobalAlloc for Reusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = block_of(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        let mut blocks = self.blocks();
        if let Some(kept) = blocks.take(block.size()) {
            return kept.as_ptr();
        }
        let most_before = blocks.begin(block.size());
        drop(blocks);
        // SAFETY: the size is not 0.
        let new = unsafe { System.alloc(block) };
        if new.is_null() {
            self.blocks().take_back(block.size(), most_before);
        }
        new
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = block_of(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let mut blocks = self.blocks();
        if let Some(kept) = blocks.take(block.size()) {
            drop(blocks);
            // SAFETY: the block is at least as large as what was asked for, and nobody else's.
            unsafe { kept.write_bytes(0, layout.size()) };
            return kept.as_ptr();
        }
        let most_before = blocks.begin(block.size());
        drop(blocks);
        // SAFETY: the size is not 0.
        let new = unsafe { System.alloc_zeroed(block) };
        if new.is_null() {
            self.blocks().take_back(block.size(), most_before);
        }
        new
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        let Some(block) = block_of(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(address, layout) };
        };
        let mut blocks = self.blocks();
        blocks.used_bytes -= block.size();
        if self.keeps.load(Ordering::Relaxed) {
            return blocks.put(address, block.size());
        }
        drop(blocks);
        // SAFETY: the block came from the system for this layout.
        unsafe { System.dealloc(address, block) };
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (block_of(layout), block_of(wanted)) {
            // SAFETY: the caller's promise.
            (None, None) => return unsafe { System.realloc(address, layout, size) },
            (Some(has), Some(wants)) if has == wants => return address,
            // SAFETY: the caller's promises. The system moves pages where it can, without a copy.
            (Some(has), Some(wants)) => return unsafe { self.resize(address, has, wants.size()) },
            _ => {}
        }
        // SAFETY: the caller's promises; the two blocks are not one.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                new.copy_from_nonoverlapping(address, size.min(layout.size()));
                self.dealloc(address, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn layout(mib: usize) -> Layout {
        Layout::from_size_align(mib * MIB, 4).unwrap()
    }

    fn kept(allocator: &Reusing) -> [usize; 3] {
        let blocks = allocator.blocks();
        [blocks.kept_bytes / MIB, blocks.used_bytes / MIB, blocks.most_used_bytes / MIB]
    }

    #[test]
    fn nothing_is_kept_until_it_is_asked_for() {
        let allocator = Reusing::new();
        // SAFETY: what is freed was allocated with the same layout.
        unsafe {
            let block = allocator.alloc(layout(16));
            assert_eq!(kept(&allocator), [0, 16, 16]);
            allocator.dealloc(block, layout(16));
        }
        assert_eq!(kept(&allocator), [0, 0, 16]);
    }

    #[test]
    fn a_kept_block_serves_the_next_request_of_its_size_and_comes_zeroed_if_asked() {
        let allocator = Reusing::new();
        allocator.keep();
        // SAFETY: as above; all writes are inside.
        unsafe {
            let first = allocator.alloc(layout(16));
            first.write_bytes(7, 16 * MIB);
            allocator.dealloc(first, layout(16));
            assert_eq!(kept(&allocator), [16, 0, 16]);
            let second = allocator.alloc_zeroed(layout(15));
            assert_eq!(second, first, "15 MiB are served by a block of 16");
            assert!(std::slice::from_raw_parts(second, 15 * MIB).iter().all(|byte| *byte == 0));
            allocator.dealloc(second, layout(15));
        }
        allocator.release();
        assert_eq!(kept(&allocator), [0, 0, 0]);
    }

    #[test]
    fn what_is_kept_and_used_is_never_more_than_the_most_that_was_used() {
        let allocator = Reusing::new();
        allocator.keep();
        // SAFETY: as above.
        unsafe {
            let blocks = [8, 10, 12].map(|mib| (allocator.alloc(layout(mib)), layout(mib)));
            for (block, layout) in blocks {
                allocator.dealloc(block, layout);
            }
            assert_eq!(kept(&allocator), [30, 0, 30]);
            let other = allocator.alloc(layout(20));
            assert_eq!(kept(&allocator), [0, 20, 30], "8, 10 and 12 had to go, the longest kept first");
            allocator.dealloc(other, layout(20));
            let larger = allocator.alloc(layout(40));
            assert_eq!(kept(&allocator), [0, 40, 40]);
            allocator.dealloc(larger, layout(40));
        }
        allocator.release();
    }

    #[test]
    fn a_block_grows_and_shrinks_with_its_numbers() {
        let allocator = Reusing::new();
        allocator.keep();
        // SAFETY: as above.
        unsafe {
            let small = allocator.alloc(layout(4));
            small.write_bytes(3, 4 * MIB);
            let mut block = small;
            let mut has = 4;
            for (wants, used) in [(9, 10), (10, 10), (40, 40), (12, 12), (6, 0)] {
                block = allocator.realloc(block, layout(has), wants * MIB);
                assert!(std::slice::from_raw_parts(block, 4 * MIB).iter().all(|byte| *byte == 3));
                assert_eq!(kept(&allocator)[1], used, "{wants} MiB");
                has = wants;
            }
            allocator.dealloc(block, layout(6));
        }
        let [kept, used, most] = kept(&allocator);
        assert!(used == 0 && kept <= most && most == 40, "{kept}, {used}, {most}");
        allocator.release();
    }

    #[test]
    fn what_the_system_cannot_give_leaves_no_trace() {
        let allocator = Reusing::new();
        allocator.keep();
        let vast = Layout::from_size_align(isize::MAX as usize - 4 * MIB, 8).unwrap();
        // SAFETY: as above; what is not given is not freed.
        unsafe {
            assert!(allocator.alloc(vast).is_null() && allocator.alloc_zeroed(vast).is_null());
            let block = allocator.alloc(layout(16));
            assert!(allocator.realloc(block, layout(16), vast.size()).is_null());
            assert_eq!(kept(&allocator), [0, 16, 16]);
            allocator.dealloc(block, layout(16));
        }
        allocator.release();
    }

    #[test]
    fn the_longest_kept_block_makes_place_for_one_more() {
        let allocator = Reusing::new();
        allocator.keep();
        // SAFETY: as above.
        unsafe {
            let blocks: Vec<_> = (0..=KEPT_MAX).map(|_| allocator.alloc(layout(8))).collect();
            blocks.iter().for_each(|block| allocator.dealloc(*block, layout(8)));
            assert_eq!(kept(&allocator)[0], KEPT_MAX * 8);
            assert_eq!(allocator.alloc(layout(8)), blocks[KEPT_MAX]);
            allocator.dealloc(blocks[KEPT_MAX], layout(8));
        }
        allocator.release();
    }

    #[test]
    fn numbers_survive_growing_and_shrinking_across_the_bound() {
        let mut numbers: Vec<u32> = Vec::new();
        for (index, mib) in [1, 9, 10, 32, 9, 3].into_iter().enumerate() {
            let count = mib * MIB / 4;
            numbers.resize(count, 5);
            numbers.shrink_to(count);
            numbers[0] = index as u32;
            assert_eq!((numbers[0], numbers[count - 1], numbers.len()), (index as u32, 5, count));
        }
    }

    #[test]
    fn threads_share_what_is_kept() {
        let allocator = Reusing::new();
        allocator.keep();
        std::thread::scope(|scope| {
            for byte in 1..=4 {
                let allocator = &allocator;
                scope.spawn(move || {
                    for round in 0..50 {
                        let layout = layout(8 + 2 * (round % 3));
                        // SAFETY: as above.
                        unsafe {
                            let block = allocator.alloc(layout);
                            block.write_bytes(byte, layout.size());
                            let all = std::slice::from_raw_parts(block, layout.size());
                            assert!(all.iter().all(|there| *there == byte), "another thread wrote here");
                            allocator.dealloc(block, layout);
                        }
                        let [kept, used, most] = kept(allocator);
                        assert!(kept + used <= most, "{kept} MiB kept, {used} used, {most} at most");
                    }
                });
            }
        });
        allocator.release();
        assert_eq!(kept(&allocator), [0, 0, 0]);
    }
}
