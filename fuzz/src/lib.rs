//! What every target shares: a bound on the memory that a property may take for an input.
//!
//! The properties themselves are beside the parsers, in each crate's `properties.rs`: its tests run
//! them too, over the corpus.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are in use, and the most that were since the last look.
static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Runs a property that must not take more than `fixed` bytes, and `per_byte` for each byte of the
/// input.
///
/// # Panics
/// It took more, or does not hold.
pub fn within(fixed: usize, per_byte: usize, input: &[u8], property: impl FnOnce(&[u8])) {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    property(input);
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let max = fixed + per_byte * input.len();
    assert!(taken <= max, "{taken} bytes for an input of {}, more than {max}", input.len());
}
