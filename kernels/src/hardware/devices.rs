//! OpenCL devices, by name. The library is loaded at run time: a machine without it, or without a
//! driver, simply has none.

use opencl3::device::{CL_DEVICE_TYPE_ALL, Device};
use opencl3::platform::get_platforms;

/// `platform/device` of every OpenCL device, in the order of the platforms; empty where there is no
/// OpenCL.
pub(super) fn opencl() -> Vec<String> {
    // A missing library is an error value here, as is an installation without drivers.
    let Ok(platforms) = get_platforms() else { return Vec::new() };
    let mut names = Vec::new();
    for platform in platforms {
        let Ok(platform_name) = platform.name() else { continue };
        let Ok(devices) = platform.get_devices(CL_DEVICE_TYPE_ALL) else { continue };
        for device in devices {
            if let Ok(name) = Device::new(device).name() {
                names.push(format!("{}/{}", platform_name.trim(), name.trim()));
            }
        }
    }
    names
}
