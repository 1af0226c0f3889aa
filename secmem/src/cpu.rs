//! What the processor has, asked in one place.

/// Whether it has AVX2, and an operating system that keeps such registers. Without `std` nobody asks the processor: then what
/// the build was told counts.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    #[cfg(feature = "std")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(feature = "std"))]
    cfg!(target_feature = "avx2")
}
