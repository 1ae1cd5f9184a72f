//! OpenCL devices: detection, selection, and limits.
//!
//! The OpenCL library is loaded at run time; a machine without it, or without a driver, has no
//! devices. A device stays open for the life of the process, together with the programs that were
//! built for it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use opencl3::device as devices;
use opencl3::platform::platform as platforms;
use opencl3::types::{cl_device_id, cl_platform_id};

use super::api::{Context, Memory, Queue, refused};
use super::limits::Limits;
use super::program::Programs;
use paretune_base::error::KernelError;

/// An open device with its context and built programs.
pub struct Device {
    /// Name of the device, `platform/device`.
    pub name: String,
    /// Limits and features of the device.
    pub limits: Limits,
    pub(super) id: cl_device_id,
    pub(super) context: Context,
    pub(super) programs: Programs,
    /// Serializes the use of a processor as a device; see [`Device::turn`].
    busy: Mutex<()>,
}

// SAFETY: a device's handle is a name that any thread may use.
unsafe impl Send for Device {}
// SAFETY: a device's handle is a name that any thread may use, and all other fields are `Sync`.
unsafe impl Sync for Device {}

/// Returns the `platform/device` names of all OpenCL devices, in the order of the platforms; empty
/// without OpenCL.
#[must_use]
pub fn names() -> Vec<String> {
    all().into_iter().map(|(name, ..)| name).collect()
}

/// Returns whether a device other than the host's own processor exists.
#[must_use]
pub fn has_accelerator() -> bool {
    let is_processor = |id| kind(id).is_none_or(|kind| kind & devices::CL_DEVICE_TYPE_CPU != 0);
    all().into_iter().any(|(.., id)| !is_processor(id))
}

/// Returns the bits of `CL_DEVICE_TYPE`.
fn kind(id: cl_device_id) -> Option<u64> {
    number::<u64>(id, devices::CL_DEVICE_TYPE)
}

/// Opens the device called `name`: `platform/device` or a part of it, ignoring case. An empty name
/// selects the first graphics processor, preferably through its vendor's own driver, or the first
/// device if there is none.
///
/// # Errors
/// Fails if the device does not exist or cannot be used.
pub fn open(name: &str) -> Result<Arc<Device>, KernelError> {
    let all = all();
    let wanted = name.to_lowercase();
    let is_gpu =
        |id: cl_device_id| kind(id).is_some_and(|kind| kind & devices::CL_DEVICE_TYPE_GPU != 0);
    let found = if name.is_empty() {
        // PoCL may list a graphics processor a second time, but the vendor's own driver runs it
        // better.
        all.iter().min_by_key(|(name, _, id)| {
            (!is_gpu(*id), name.starts_with("Portable Computing Language"))
        })
    } else {
        let exact = all.iter().find(|(known, ..)| known.to_lowercase() == wanted);
        exact.or_else(|| all.iter().find(|(known, ..)| known.to_lowercase().contains(&wanted)))
    };
    let Some((full_name, platform, id)) = found else {
        let there: Vec<String> = all.iter().map(|(name, ..)| format!("`{name}`")).collect();
        return Err(KernelError::System(if there.is_empty() {
            "there is no OpenCL device on this machine; install a driver (on Debian for the CPU: \
             `apt-get install pocl-opencl-icd`)"
                .to_owned()
        } else {
            format!("there is no OpenCL device `{name}`; there are {}", there.join(", "))
        }));
    };
    let mut open = opened().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(full_name) {
        return Ok(Arc::clone(device));
    }
    let device = Arc::new(Device::new(full_name.clone(), *platform, *id)?);
    open.insert(full_name.clone(), Arc::clone(&device));
    Ok(device)
}

/// Returns the devices that this process has opened, by name.
fn opened() -> &'static Mutex<HashMap<String, Arc<Device>>> {
    static OPEN: OnceLock<Mutex<HashMap<String, Arc<Device>>>> = OnceLock::new();
    OPEN.get_or_init(Mutex::default)
}

/// Checks whether the device called `name` (as in [`open`]) still answers.
///
/// # Errors
/// Fails if the device was unplugged, if its driver has given it up, or if a kernel has made it
/// unusable for this process.
pub fn check(name: &str) -> Result<(), KernelError> {
    open(name)?.check()
}

/// Returns the error of the first open device that no longer answers, or `None` if all do.
/// Executors on such a device are unusable, and this process cannot use the device any more.
#[must_use]
pub fn unusable() -> Option<KernelError> {
    let devices: Vec<Arc<Device>> =
        opened().lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    devices.into_iter().find_map(|device| device.check().err())
}

/// Returns the name of the environment variable that lists drivers for the loader, and its value
/// before the loader was first used. The Khronos loader truncates the process's copy at the first
/// colon, so that a child process would only see the first driver. Returns `None` if the variable
/// was not set, or if the loader has not been used yet.
#[must_use]
pub fn driver_variable() -> Option<(&'static str, &'static OsStr)> {
    Some((DRIVER_VARIABLE, DRIVERS.get()?.as_deref()?))
}

const DRIVER_VARIABLE: &str = "OCL_ICD_FILENAMES";
static DRIVERS: OnceLock<Option<OsString>> = OnceLock::new();

fn all() -> Vec<(String, cl_platform_id, cl_device_id)> {
    // The first call sets up the drivers, and PoCL (3.1) crashes if two threads do so at once.
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    DRIVERS.get_or_init(|| std::env::var_os(DRIVER_VARIABLE));
    let mut found = Vec::new();
    // A missing library is an error value here, and so is an installation without drivers.
    for platform in platforms::get_platform_ids().unwrap_or_default() {
        let platform_name = platforms::get_platform_data(platform, platforms::CL_PLATFORM_NAME);
        let Some(platform_name) = platform_name.ok().map(|bytes| text(&bytes)) else { continue };
        for id in devices::get_device_ids(platform, devices::CL_DEVICE_TYPE_ALL).unwrap_or_default()
        {
            if let Some(name) = words(id, devices::CL_DEVICE_NAME) {
                found.push((format!("{platform_name}/{name}"), platform, id));
            }
        }
    }
    found
}

impl Device {
    /// Locks a device that is a processor: PoCL (3.1) crashes occasionally when two threads use it
    /// at once. Other devices need no lock, because their drivers are thread-safe.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.limits.cpu.then(|| self.busy.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies a few numbers to the device and back, through a temporary queue.
    fn check(&self) -> Result<(), KernelError> {
        let _turn = self.turn();
        let numbers = [1.0_f32, -2.5, 1e-3, 7e9];
        let mut back = [0.0; 4];
        let mut there_and_back = || -> Result<(), KernelError> {
            let queue = Queue::new(&self.context, self.id, false)?;
            let memory = Memory::new(&self.context, size_of_val(&numbers))?;
            queue.write(&memory, &numbers)?;
            queue.read(&memory, &mut back).map(drop)
        };
        let problem = match there_and_back() {
            Ok(()) if back == numbers => return Ok(()),
            Ok(()) => "it gives back other numbers than it was given".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(KernelError::System(format!(
            "OpenCL device `{}` no longer answers: {problem}",
            self.name
        )))
    }

    fn new(name: String, platform: cl_platform_id, id: cl_device_id) -> Result<Self, KernelError> {
        let limits =
            Limits::of(id).ok_or_else(|| refused("asking for the limits of a device", -33))?;
        let version = platforms::get_platform_data(platform, platforms::CL_PLATFORM_VERSION);
        let driver = [
            name.clone(),
            text(&version.unwrap_or_default()),
            words(id, devices::CL_DEVICE_VERSION).unwrap_or_default(),
            words(id, devices::CL_DRIVER_VERSION).unwrap_or_default(),
        ];
        Ok(Self {
            context: Context::new(id)?,
            programs: Programs::of(&driver.join("\n")),
            name,
            limits,
            id,
            busy: Mutex::new(()),
        })
    }
}

impl Limits {
    fn of(id: cl_device_id) -> Option<Self> {
        let sizes = devices::get_device_data(id, devices::CL_DEVICE_MAX_WORK_ITEM_SIZES).ok()?;
        let mut work_items = [1; 3];
        for (size, bytes) in work_items.iter_mut().zip(sizes.chunks_exact(size_of::<usize>())) {
            *size = usize::from_ne_bytes(bytes.try_into().ok()?);
        }
        let kind = number::<u64>(id, devices::CL_DEVICE_TYPE)?;
        let extensions = words(id, devices::CL_DEVICE_EXTENSIONS).unwrap_or_default();
        let has = |name: &str| extensions.split_whitespace().any(|extension| extension == name);
        let capability = if has("cl_nv_device_attribute_query") {
            let major =
                number::<u32>(id, devices::CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV).unwrap_or(0);
            10 * major
                + number::<u32>(id, devices::CL_DEVICE_COMPUTE_CAPABILITY_MINOR_NV).unwrap_or(0)
        } else {
            0
        };
        let bytes = |what| Some(usize::try_from(number::<u64>(id, what)?).unwrap_or(usize::MAX));
        Some(Self {
            work_group: number::<usize>(id, devices::CL_DEVICE_MAX_WORK_GROUP_SIZE)?,
            work_items,
            local_memory: bytes(devices::CL_DEVICE_LOCAL_MEM_SIZE)?,
            largest_buffer: bytes(devices::CL_DEVICE_MAX_MEM_ALLOC_SIZE)?,
            compute_units: number::<u32>(id, devices::CL_DEVICE_MAX_COMPUTE_UNITS)? as usize,
            cpu: kind & devices::CL_DEVICE_TYPE_CPU != 0,
            compute_capability: capability,
            half_arithmetic: has("cl_khr_fp16"),
            integer_dot_product: has("cl_khr_integer_dot_product"),
        })
    }
}

/// A number in the machine's byte order.
trait Number: Sized {
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! number {
    ($($name:ty),*) => {
        $(impl Number for $name {
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_ne_bytes(bytes.try_into().ok()?))
            }
        })*
    };
}
number!(u32, u64, usize);

fn number<T: Number>(id: cl_device_id, what: u32) -> Option<T> {
    T::from_bytes(&devices::get_device_data(id, what).ok()?)
}

fn words(id: cl_device_id, what: u32) -> Option<String> {
    devices::get_device_data(id, what).ok().map(|bytes| text(&bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').trim().to_owned()
}
