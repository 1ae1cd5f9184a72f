//! Device boundaries: the meeting point of a device that runs a part of a plan and the executors of
//! the other parts. A boundary holds the crossing values in device memory, the queue that all parts
//! of the device share, and pinned host memory on the other side.
//!
//! The executor of partitioned plans decides which values cross, and when.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::{Memory, Pinned, Queue};
use super::device;
use super::device::Device;
use paretune_base::error::KernelError;
use paretune_base::plan::ValueId;

/// The device's side of a boundary.
pub struct DeviceBoundary {
    pub(super) device: Arc<Device>,
    pub(super) queue: Arc<Queue>,
    memories: HashMap<ValueId, Arc<Memory>>,
    bytes: u64,
}

/// Pinned memory of the host.
pub struct Pages {
    device: Arc<Device>,
    /// Set until this value is dropped.
    pinned: Option<Pinned>,
}

impl DeviceBoundary {
    /// Opens a device and creates a boundary without values.
    ///
    /// # Errors
    /// Fails if the device does not exist or refuses.
    pub fn new(device: &str) -> Result<Self, KernelError> {
        let device = device::open(device)?;
        let queue = {
            let _turn = device.turn();
            Arc::new(Queue::new(&device.context, device.id, false)?)
        };
        Ok(Self { device, queue, memories: HashMap::new(), bytes: 0 })
    }

    /// Allocates device memory of `len` elements for `value`, unless it has some already.
    pub fn add(&mut self, value: ValueId, len: usize) -> Result<(), KernelError> {
        let bytes = len * size_of::<f32>();
        let limit = self.device.limits.largest_buffer;
        if bytes > limit {
            let name = &self.device.name;
            let problem = format!(
                "value {value} takes {bytes} bytes; `{name}` has buffers of at most {limit}"
            );
            return Err(KernelError::System(problem));
        }
        if !self.memories.contains_key(&value) {
            let _turn = self.device.turn();
            self.memories.insert(value, Arc::new(Memory::new(&self.device.context, bytes)?));
            self.bytes += bytes as u64;
        }
        Ok(())
    }

    /// Allocates pinned memory for `len` elements.
    pub fn pages(&self, len: usize) -> Result<Pages, KernelError> {
        let _turn = self.device.turn();
        let pinned = Pinned::new(&self.device.context, &self.queue, len)?;
        Ok(Pages { device: Arc::clone(&self.device), pinned: Some(pinned) })
    }

    /// Returns the device memory of a crossing value.
    pub(super) fn memory(&self, value: ValueId) -> Option<&Arc<Memory>> {
        self.memories.get(&value)
    }

    /// Returns whether both are boundaries of the same device.
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.device, &other.device)
    }

    /// Returns the bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Enqueues the copy of `data` to the device.
    ///
    /// # Safety
    /// `data` must not change until [`DeviceBoundary::finish`] has returned.
    pub unsafe fn upload(&self, value: ValueId, data: &[f32]) -> Result<(), KernelError> {
        if data.is_empty() {
            return Ok(());
        }
        let _turn = self.device.turn();
        // SAFETY: the caller leaves `data` unchanged until `finish` has returned.
        unsafe { self.queue.upload(self.own(value)?, data) }.map(drop)?;
        if self.device.limits.cpu { self.queue.finish() } else { Ok(()) }
    }

    /// Enqueues the copy of a value from the device to `data`.
    ///
    /// # Safety
    /// `data` must not be accessed until [`DeviceBoundary::finish`] has returned.
    pub unsafe fn download(&self, value: ValueId, data: &mut [f32]) -> Result<(), KernelError> {
        if data.is_empty() {
            return Ok(());
        }
        let _turn = self.device.turn();
        // SAFETY: the caller does not access `data` until `finish` has returned.
        unsafe { self.queue.download(self.own(value)?, data) }.map(drop)?;
        if self.device.limits.cpu { self.queue.finish() } else { Ok(()) }
    }

    /// Waits for all enqueued commands.
    pub fn finish(&self) -> Result<(), KernelError> {
        let _turn = self.device.turn();
        self.queue.finish()
    }

    fn own(&self, value: ValueId) -> Result<&Memory, KernelError> {
        let memory = self.memories.get(&value);
        memory.map(|memory| &**memory).ok_or_else(|| {
            KernelError::Data(format!("value {value} has no memory at the boundary of the device"))
        })
    }
}

impl Drop for DeviceBoundary {
    fn drop(&mut self) {
        let _turn = self.device.turn();
        // No command may run when its memory is released. After a device loss, none does.
        let _ = self.queue.finish();
        self.memories.clear();
    }
}

impl Pages {
    /// Returns the address of the first element.
    pub fn start(&self) -> *mut f32 {
        self.pinned.as_ref().map_or(std::ptr::null_mut(), Pinned::start)
    }

    /// Returns the number of pinned bytes.
    pub fn bytes(&self) -> u64 {
        self.pinned.as_ref().map_or(0, |pinned| (pinned.len() * size_of::<f32>()) as u64)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _turn = self.device.turn();
        self.pinned = None;
    }
}
