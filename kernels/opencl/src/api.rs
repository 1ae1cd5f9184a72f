//! Owners of OpenCL objects. Each releases its object exactly once, and a failed release never
//! panics: a lost device refuses every call, including this one.
//!
//! All `unsafe` code of the backend is in this module and below it. Callers decide which objects to
//! create, and when.

use std::ffi::{CStr, c_void};
use std::ptr;

use opencl3::command_queue as queue;
use opencl3::context::context;
use opencl3::error_codes::ClError;
use opencl3::event;
use opencl3::kernel as cl_kernels;
use opencl3::memory as mem;
use opencl3::program as programs;
use opencl3::types::{
    CL_BLOCKING, CL_NON_BLOCKING, cl_bool, cl_command_queue, cl_context, cl_device_id, cl_event,
    cl_int, cl_kernel, cl_mem, cl_program, cl_uint,
};

use paretune_base::error::KernelError;

mod pinned;

pub(super) use pinned::Pinned;

/// Converts an error code to an error that names the failed operation.
pub(super) fn refused(what: &str, code: cl_int) -> KernelError {
    KernelError::System(format!("OpenCL: {what}: {}", ClError(code)))
}

/// Returns the result of a call; tests inject failures here (see `fault.rs`).
fn returned<T>(result: Result<T, cl_int>) -> Result<T, cl_int> {
    #[cfg(any(test, feature = "fault-injection"))]
    if let Some(code) = super::fault::injected() {
        return Err(code);
    }
    result
}

/// Function type of `clEnqueueNDRangeKernel` in the OpenCL library.
type EnqueueKernel = unsafe extern "C" fn(
    cl_command_queue,
    cl_kernel,
    cl_uint,
    *const usize,
    *const usize,
    *const usize,
    cl_uint,
    *const cl_event,
    *mut cl_event,
) -> cl_int;

/// Returns the OpenCL library's own `clEnqueueNDRangeKernel`, which can be called without an event;
/// the bindings always create one. Returns `None` if the library was not loaded under its usual
/// name.
#[cfg(target_os = "linux")]
fn eventless() -> Option<EnqueueKernel> {
    use std::sync::OnceLock;

    use nix::libc::{RTLD_NOLOAD, RTLD_NOW, dlopen, dlsym};
    static FUNCTION: OnceLock<Option<EnqueueKernel>> = OnceLock::new();
    *FUNCTION.get_or_init(|| {
        // SAFETY: names end in zero; nothing is loaded that is not there already.
        let address = unsafe {
            let library = dlopen(c"libOpenCL.so.1".as_ptr(), RTLD_NOW | RTLD_NOLOAD);
            if library.is_null() {
                return None;
            }
            dlsym(library, c"clEnqueueNDRangeKernel".as_ptr())
        };
        // SAFETY: the function of that name in a library of that name has the type that the OpenCL
        // specification gives it; null is no function.
        (!address.is_null())
            .then(|| unsafe { std::mem::transmute::<*mut c_void, EnqueueKernel>(address) })
    })
}

#[cfg(not(target_os = "linux"))]
fn eventless() -> Option<EnqueueKernel> {
    None
}

/// Declares an owner of one kind of OpenCL object.
macro_rules! owner {
    ($(#[$about:meta])* $name:ident, $raw:ty, $release:path) => {
        $(#[$about])*
        pub(super) struct $name($raw);

        // SAFETY: OpenCL objects may be used and released from any thread (specification, section
        // "Multiple host threads"); kernels, whose arguments may not be set by two threads at once,
        // are only used through exclusive references.
        unsafe impl Send for $name {}
        // SAFETY: through shared references OpenCL objects are only used by functions that any
        // number of host threads may call at once.
        unsafe impl Sync for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: created by this module, and released nowhere else.
                if let Err(code) = unsafe { $release(self.0) } {
                    tracing::debug!(concat!("OpenCL: releasing ", stringify!($name), ": {}"), ClError(code));
                }
            }
        }
    };
}

owner!(
    /// Owner of a context for one device.
    Context, cl_context, context::release_context);
owner!(
    /// Owner of an in-order command queue.
    Queue, cl_command_queue, queue::release_command_queue);
owner!(
    /// Owner of a buffer in device memory.
    Memory, cl_mem, mem::release_mem_object);
owner!(
    /// Owner of a built program.
    Program, cl_program, programs::release_program);
owner!(
    /// Owner of a kernel with its arguments.
    Kernel, cl_kernel, cl_kernels::release_kernel);
owner!(
    /// Owner of the event of an enqueued command.
    Event, cl_event, event::release_event);

impl Context {
    pub fn new(device: cl_device_id) -> Result<Self, KernelError> {
        returned(context::create_context(&[device], ptr::null(), None, ptr::null_mut()))
            .map(Self)
            .map_err(|code| refused("creating a context", code))
    }
}

impl Queue {
    /// Creates an in-order queue, which records the times of commands if `profiling`.
    pub fn new(
        context: &Context,
        device: cl_device_id,
        profiling: bool,
    ) -> Result<Self, KernelError> {
        let properties = if profiling { queue::CL_QUEUE_PROFILING_ENABLE } else { 0 };
        // SAFETY: the device is the one that the context was made for.
        returned(unsafe { queue::create_command_queue(context.0, device, properties) })
            .map(Self)
            .map_err(|code| refused("creating a queue", code))
    }

    /// Enqueues a copy of `data` to `memory`; `blocking` waits for it.
    ///
    /// # Safety
    /// Without `blocking`, the caller must wait for the queue before it drops or changes `data`.
    unsafe fn enqueue_write<T: Copy>(
        &self,
        memory: &Memory,
        data: &[T],
        blocking: cl_bool,
    ) -> Result<Event, KernelError> {
        // SAFETY: the size is that of the slice; OpenCL checks it against the buffer; the slice
        // lives until the copy is done, because the call waits or the caller does.
        returned(unsafe {
            queue::enqueue_write_buffer(
                self.0,
                memory.0,
                blocking,
                0,
                size_of_val(data),
                data.as_ptr().cast::<c_void>().cast_mut(),
                0,
                ptr::null(),
            )
        })
        .map(Event)
        .map_err(|code| refused("copying to the device", code))
    }

    /// Enqueues a copy of `memory` to `data`; `blocking` waits for it and for all earlier commands.
    /// `action` names the copy in errors.
    ///
    /// # Safety
    /// Without `blocking`, the caller must wait for the queue before it reads or drops `data`.
    unsafe fn enqueue_read(
        &self,
        memory: &Memory,
        data: &mut [f32],
        blocking: cl_bool,
        action: &str,
    ) -> Result<Event, KernelError> {
        // SAFETY: the size is that of the slice; OpenCL checks it against the buffer; the slice
        // lives until the copy is done, because the call waits or the caller does.
        returned(unsafe {
            queue::enqueue_read_buffer(
                self.0,
                memory.0,
                blocking,
                0,
                size_of_val(data),
                data.as_mut_ptr().cast(),
                0,
                ptr::null(),
            )
        })
        .map(Event)
        .map_err(|code| refused(action, code))
    }

    /// Copies `data` to `memory` asynchronously; `data` must not change until the queue has
    /// finished.
    ///
    /// # Safety
    /// The caller must wait for the queue before it drops `data`.
    pub unsafe fn upload<T: Copy>(
        &self,
        memory: &Memory,
        data: &[T],
    ) -> Result<Event, KernelError> {
        // SAFETY: the caller waits before it drops or changes `data`.
        unsafe { self.enqueue_write(memory, data, CL_NON_BLOCKING) }
    }

    /// Copies `memory` to `data` asynchronously; `data` must not be accessed until the queue has
    /// finished.
    ///
    /// # Safety
    /// The caller must wait for the queue before it reads or drops `data`.
    pub unsafe fn download(&self, memory: &Memory, data: &mut [f32]) -> Result<Event, KernelError> {
        // SAFETY: the caller waits before it reads or drops `data`.
        unsafe { self.enqueue_read(memory, data, CL_NON_BLOCKING, "copying from the device") }
    }

    /// Copies `data` to `memory` and waits for completion.
    pub fn write<T: Copy>(&self, memory: &Memory, data: &[T]) -> Result<(), KernelError> {
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the copy is blocking.
        unsafe { self.enqueue_write(memory, data, CL_BLOCKING) }.map(drop)
    }

    /// Copies `memory` to `data` after all earlier commands, and waits for completion.
    pub fn read(&self, memory: &Memory, data: &mut [f32]) -> Result<Event, KernelError> {
        let action = "copying from the device (or a kernel before it)";
        // SAFETY: the copy is blocking.
        unsafe { self.enqueue_read(memory, data, CL_BLOCKING, action) }
    }

    /// Enqueues `kernel` without an event. Drivers take much longer to create an event than to
    /// start the kernel.
    pub fn start(
        &self,
        kernel: &Kernel,
        global: &[usize; 3],
        local: &[usize; 3],
    ) -> Result<(), KernelError> {
        let Some(enqueue) = eventless() else {
            return self.launch(kernel, global, local).map(drop);
        };
        // SAFETY: as in `launch`; the specification allows an event that is null.
        let code = unsafe {
            enqueue(
                self.0,
                kernel.0,
                3,
                ptr::null(),
                global.as_ptr(),
                local.as_ptr(),
                0,
                ptr::null(),
                ptr::null_mut(),
            )
        };
        returned(if code == 0 { Ok(()) } else { Err(code) })
            .map_err(|code| refused("starting a kernel", code))
    }

    /// Enqueues `kernel` and returns its event.
    pub fn launch(
        &self,
        kernel: &Kernel,
        global: &[usize; 3],
        local: &[usize; 3],
    ) -> Result<Event, KernelError> {
        // SAFETY: the arguments were set to live buffers of the same context; three sizes each.
        returned(unsafe {
            queue::enqueue_nd_range_kernel(
                self.0,
                kernel.0,
                3,
                ptr::null(),
                global.as_ptr(),
                local.as_ptr(),
                0,
                ptr::null(),
            )
        })
        .map(Event)
        .map_err(|code| refused("starting a kernel", code))
    }

    /// Waits for all enqueued commands.
    pub fn finish(&self) -> Result<(), KernelError> {
        returned(queue::finish(self.0)).map_err(|code| refused("waiting for the device", code))
    }
}

impl Memory {
    /// Allocates `bytes` of device memory with undefined contents.
    pub fn new(context: &Context, bytes: usize) -> Result<Self, KernelError> {
        // SAFETY: no host memory is involved.
        returned(unsafe {
            mem::create_buffer(context.0, mem::CL_MEM_READ_WRITE, bytes.max(1), ptr::null_mut())
        })
        .map(Self)
        .map_err(|code| refused(&format!("allocating {bytes} bytes on the device"), code))
    }
}

impl Program {
    /// Builds `source`. The error contains the compiler's log.
    pub fn from_source(
        context: &Context,
        device: cl_device_id,
        source: &str,
        options: &CStr,
    ) -> Result<Self, KernelError> {
        let program = programs::create_program_with_source(context.0, &[source])
            .map(Self)
            .map_err(|code| refused("creating a program", code))?;
        program.build(device, options)?;
        Ok(program)
    }

    /// Builds a program from a [`Program::binary`] of the same device and driver.
    pub fn from_binary(
        context: &Context,
        device: cl_device_id,
        binary: &[u8],
        options: &CStr,
    ) -> Result<Self, KernelError> {
        // SAFETY: the device belongs to the context; the driver checks the binary.
        let program =
            unsafe { programs::create_program_with_binary(context.0, &[device], &[binary]) }
                .map(Self)
                .map_err(|code| refused("loading a program", code))?;
        program.build(device, options)?;
        Ok(program)
    }

    fn build(&self, device: cl_device_id, options: &CStr) -> Result<(), KernelError> {
        programs::build_program(self.0, &[device], options, None, ptr::null_mut()).map_err(|code| {
            let log =
                programs::get_program_build_data(self.0, device, programs::CL_PROGRAM_BUILD_LOG)
                    .map(|log| {
                        String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_owned()
                    })
                    .unwrap_or_default();
            KernelError::System(format!(
                "OpenCL: a kernel does not build: {}: {log}",
                ClError(code)
            ))
        })
    }

    /// Returns the binary that the driver has built, if it provides one.
    pub fn binary(&self) -> Option<Vec<u8>> {
        let mut binaries: Vec<Vec<u8>> =
            programs::get_program_info(self.0, programs::CL_PROGRAM_BINARIES).ok()?.into();
        binaries.pop().filter(|binary| !binary.is_empty())
    }

    /// Creates the kernel called `name`.
    pub fn kernel(&self, name: &CStr) -> Result<Kernel, KernelError> {
        cl_kernels::create_kernel(self.0, name)
            .map(Kernel)
            .map_err(|code| refused(&format!("taking kernel {name:?}"), code))
    }
}

impl Kernel {
    /// Sets argument `index` to a buffer.
    ///
    /// # Safety
    /// The buffer must live as long as the kernel is launched with it, and must be as large as the
    /// memory that the kernel accesses.
    pub unsafe fn set(&mut self, index: usize, memory: &Memory) -> Result<(), KernelError> {
        let raw: cl_mem = memory.0;
        let index = cl_uint::try_from(index).unwrap_or(cl_uint::MAX);
        // SAFETY: the argument is a memory object, passed by the address of its handle.
        unsafe {
            cl_kernels::set_kernel_arg(self.0, index, size_of::<cl_mem>(), (&raw const raw).cast())
        }
        .map_err(|code| refused(&format!("setting argument {index} of a kernel"), code))
    }
}

impl Event {
    /// Returns the nanoseconds that the device spent on the command. The queue must have profiling
    /// enabled, and must have finished.
    pub fn nanoseconds(&self) -> Result<u64, KernelError> {
        let stamp = |what| -> Result<u64, KernelError> {
            let bytes = event::get_event_profiling_data(self.0, what)
                .map_err(|code| refused("asking for a command's time", code))?;
            Ok(bytes.try_into().map_or(0, u64::from_ne_bytes))
        };
        let start = stamp(event::CL_PROFILING_COMMAND_START)?;
        Ok(stamp(event::CL_PROFILING_COMMAND_END)?.saturating_sub(start))
    }
}
