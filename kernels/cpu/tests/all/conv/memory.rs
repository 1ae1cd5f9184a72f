//! Memory with guard bands, and runs of kernels on it.

use paretune_base::plan::layout::Layout;
use paretune_base::threads::ThreadPool;
use paretune_cpu::conv::{Algorithm, Call, Kernel, Request};

pub(crate) const GUARD: usize = 128;
pub(crate) const POISON: u8 = 0xFF;

/// Memory between two guard bands that must stay untouched. All bits are set, which is NaN in
/// single precision.
pub(crate) struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    pub(crate) len: usize,
}

impl Guarded {
    /// Allocates memory that starts `skew` bytes after a 64-byte boundary.
    pub(crate) fn poisoned(len: usize, skew: usize) -> Self {
        let bytes = vec![POISON; len + 2 * GUARD + 64 + skew];
        let start = GUARD + bytes.as_ptr().align_offset(64) + skew;
        Self { bytes, start, len }
    }

    pub(crate) fn from_f32(values: &[f32], skew: usize) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        Self::from_bytes(&bytes, skew)
    }

    pub(crate) fn from_bytes(values: &[u8], skew: usize) -> Self {
        let mut guarded = Self::poisoned(values.len(), skew);
        let start = guarded.start;
        guarded.bytes[start..start + values.len()].copy_from_slice(values);
        guarded
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes[self.start..].as_mut_ptr()
    }

    pub(crate) fn contents(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(crate) fn f32s(&self) -> Vec<f32> {
        self.contents().as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
    }

    pub(crate) fn check(&self, what: &str) {
        let (before, rest) = self.bytes.split_at(self.start);
        let guards = before.iter().chain(&rest[self.len..]);
        assert!(guards.copied().all(|byte| byte == POISON), "something wrote around the {what}");
    }
}

/// Permutes a tensor from NCHW to `layout`.
pub(crate) fn arrange<T: Copy>(
    values: &[T],
    [batch, channels, pixels]: [usize; 3],
    layout: Layout,
) -> Vec<T> {
    let mut arranged = values.to_vec();
    let size = channels * pixels;
    for (i, value) in values.iter().enumerate().take(batch * size) {
        let place = layout.place([channels, pixels], i % size / pixels, i % pixels);
        arranged[i / size * size + place] = *value;
    }
    arranged
}

/// Prepares the kernel and runs it on the requested threads; the result has the algorithm's layout.
pub(crate) fn run(
    algorithm: &dyn Algorithm,
    request: &Request<'_>,
    input: &mut Guarded,
    residual: Option<&mut Guarded>,
    output_bytes: usize,
) -> Guarded {
    let kernel = algorithm.prepare(request).unwrap_or_else(|error| {
        panic!("{} refuses {:?}: {error}", algorithm.name(), request.schedule)
    });
    run_kernel(kernel, request.threads, input, residual, output_bytes)
}

/// Runs the kernel on `threads` threads; the result has the algorithm's layout.
pub(crate) fn run_kernel(
    kernel: Box<dyn Kernel>,
    threads: usize,
    input: &mut Guarded,
    residual: Option<&mut Guarded>,
    output_bytes: usize,
) -> Guarded {
    let mut output = Guarded::poisoned(output_bytes, 4);
    let mut workspace = Guarded::poisoned(kernel.workspace_bytes(), 0);
    assert!(kernel.weight_bytes() > 0);
    struct Shared(Call, Box<dyn Kernel>);
    // SAFETY: the addresses outlive the run below, and kernels share them out among workers.
    unsafe impl Sync for Shared {}
    let shared = Shared(
        Call {
            input: input.as_mut_ptr(),
            residual: residual
                .map_or(std::ptr::null(), |residual| residual.as_mut_ptr().cast_const()),
            output: output.as_mut_ptr(),
            workspace: workspace.as_mut_ptr(),
        },
        kernel,
    );
    let shared = &shared;
    // Run twice, because the workspace then holds the data of the first run.
    for _ in 0..2 {
        ThreadPool::new(threads)
            .unwrap()
            // SAFETY: the buffers have the sizes of the request, and the whole pool makes this
            // call.
            .run(|worker| unsafe { shared.1.run(&shared.0, worker) })
            .unwrap();
    }
    output.check("output");
    workspace.check("workspace");
    output
}
