//! Tests of device loss during use.

use super::*;
use paretune_opencl::{check, unusable};

/// A loaded plan reports the cause whichever call fails first. Nothing panics or hangs when it is
/// dropped, and a device that answers again can be used again.
#[test]
fn a_lost_device_is_an_error_and_nothing_else() {
    if !present() {
        return;
    }
    let mut network = Network::new(5, &[4, 5, 5]);
    let weights = network.weights([4, 4, 1, 1], true);
    let (window, activation) = (Window::POINT, Activation::Relu);
    let schedule = Schedule::of("opencl_direct");
    network.step(
        Operator::Conv(Conv { window, groups: 1, weights, activation, schedule }),
        &[0],
        &[],
    );
    let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::Portable };
    let (input, mut output) = (vec![0.5; 100], vec![0.0; 100]);
    for (code, name) in [
        (-2, "CL_DEVICE_NOT_AVAILABLE"),
        (-5, "CL_OUT_OF_RESOURCES"),
        (-36, "CL_INVALID_COMMAND_QUEUE"),
    ] {
        let mut executor = Executor::new(&network.plan, &options).unwrap();
        executor.run(&input, &mut output).unwrap();
        fault::here(Some(code));
        let lost =
            |error: String| assert!(error.contains("OpenCL") && error.contains(name), "{error}");
        lost(executor.run(&input, &mut output).unwrap_err().to_string());
        lost(executor.profile(&input, &mut output).unwrap_err().to_string());
        lost(executor.pass_seconds(2).unwrap_err().to_string());
        lost(executor.observe(&input, &mut |_, _| ()).unwrap_err().to_string());
        lost(Executor::new(&network.plan, &options).map(drop).unwrap_err().to_string());
        lost(check("").unwrap_err().to_string());
        lost(unusable().expect("it is lost").to_string());
        drop(executor);
        fault::here(None);
        check("").unwrap();
    }
    assert!(unusable().is_none());
    Executor::new(&network.plan, &options).unwrap().run(&input, &mut output).unwrap();
}
