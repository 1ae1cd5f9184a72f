//! Host memory that devices access directly.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use opencl3::command_queue as queue;
use opencl3::error_codes::ClError;
use opencl3::memory as mem;
use opencl3::types::CL_BLOCKING;

use super::{Context, Event, Memory, Queue, refused};
use paretune_base::error::KernelError;

/// Host memory pinned by the driver, so that the device can access it directly. It stays mapped for
/// its whole life.
pub(crate) struct Pinned {
    memory: Memory,
    queue: Arc<Queue>,
    start: *mut f32,
    len: usize,
}

// SAFETY: mapped memory may be used from any thread, and is this value's alone.
unsafe impl Send for Pinned {}
// SAFETY: a shared reference gives out an address only; whoever dereferences it takes care.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Allocates pinned memory for `len` elements, initially zero.
    pub fn new(context: &Context, queue: &Arc<Queue>, len: usize) -> Result<Self, KernelError> {
        let bytes = (len * size_of::<f32>()).max(1);
        let flags = mem::CL_MEM_READ_WRITE | mem::CL_MEM_ALLOC_HOST_PTR;
        // SAFETY: the driver allocates.
        let memory = unsafe { mem::create_buffer(context.0, flags, bytes, ptr::null_mut()) }
            .map(Memory)
            .map_err(|code| refused(&format!("allocating {bytes} pinned bytes"), code))?;
        let mut start: *mut c_void = ptr::null_mut();
        let access = mem::CL_MAP_READ | mem::CL_MAP_WRITE;
        // SAFETY: blocking; the whole buffer.
        unsafe {
            queue::enqueue_map_buffer(
                queue.0,
                memory.0,
                CL_BLOCKING,
                access,
                0,
                bytes,
                &mut start,
                0,
                ptr::null(),
            )
        }
        .map(|raw| drop(Event(raw)))
        .map_err(|code| refused("mapping pinned memory", code))?;
        let pinned = Self { memory, queue: Arc::clone(queue), start: start.cast(), len };
        // SAFETY: mapped above, for writing, with room for so many numbers, which are aligned as
        // any buffer is.
        unsafe { pinned.start.write_bytes(0, len) };
        Ok(pinned)
    }

    /// Returns the address of the first element.
    pub fn start(&self) -> *mut f32 {
        self.start
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: mapped when it was made, and unmapped nowhere else; nobody has the address any
        // more.
        let unmapped = unsafe {
            queue::enqueue_unmap_mem_object(
                self.queue.0,
                self.memory.0,
                self.start.cast(),
                0,
                ptr::null(),
            )
        };
        match unmapped {
            Ok(event) => drop(Event(event)),
            Err(code) => tracing::debug!("OpenCL: unmapping: {}", ClError(code)),
        }
        // The memory is released next.
        if let Err(error) = self.queue.finish() {
            tracing::debug!("{error}");
        }
    }
}
