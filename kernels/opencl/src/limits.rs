//! The limits of a device that kernels and their tunables depend on.

/// Limits and features of a device on which kernels and their tunables depend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Maximum number of work-items in a work-group.
    pub work_group: usize,
    /// Maximum number of work-items along each axis of a work-group.
    pub work_items: [usize; 3],
    /// Bytes of local memory of a work-group.
    pub local_memory: usize,
    /// Maximum bytes of one buffer.
    pub largest_buffer: usize,
    /// Number of units that run work-groups in parallel.
    pub compute_units: usize,
    /// Whether the device is the host's own processor. A work-item is then an iteration of a loop,
    /// and local memory is not faster than global memory.
    pub cpu: bool,
    /// Compute capability of an NVIDIA device, ten times the major number plus the minor; otherwise
    /// 0.
    pub compute_capability: u32,
    /// Whether half-precision arithmetic is supported (`cl_khr_fp16`).
    pub half_arithmetic: bool,
    /// Whether packed 8-bit dot products are supported (`cl_khr_integer_dot_product`).
    pub integer_dot_product: bool,
}
