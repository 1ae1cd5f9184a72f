//! Activations of vectors against their scalar definitions.

use paretune_base::plan::activation::Activation;
use paretune_cpu::operators::activation::{exp, in_place};

#[test]
fn exp_is_accurate_everywhere() {
    let mut x = -87.0_f32;
    while x < 88.0 {
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(error < 3e-7, "exp({x}) is off by {error}");
        x += 0.013;
    }
    assert!(exp(-1000.0) < 2e-38);
    assert!(exp(f32::NAN).is_nan());
    assert_eq!(exp(0.0), 1.0);
}

#[test]
fn vector_and_scalar_definitions_agree() {
    for activation in [
        Activation::Identity,
        Activation::Relu,
        Activation::Clip { low: -0.5, high: 6.0 },
        Activation::LeakyRelu { slope: 0.1 },
        Activation::Sigmoid,
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::HardSwish,
    ] {
        for step in -90..90 {
            let x = step as f32 * 0.11;
            let mut numbers = [x];
            in_place(activation, &mut numbers);
            let expected = activation.apply(x);
            assert!((numbers[0] - expected).abs() < 1e-6, "{activation:?}({x})");
        }
    }
}
