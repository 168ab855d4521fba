//! How the system's allocator divides memory among threads.
//!
//! glibc gives each of up to eight threads a core an arena of its own, and an arena keeps what is freed in it. As many
//! arenas as cores are as fast, and keep less (`docs/PERF.md`). Source: `mallopt(3)`.

/// Bounds the arenas of glibc, where that is the allocator and `MALLOC_ARENA_MAX` does not say otherwise. To be called
/// before threads start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
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
