//! The drawn images must equal those that the network was trained for, on every machine.

use super::*;

#[test]
fn the_same_images_on_every_machine() {
    let images = images(Part::Report, 200);
    // The hash changes only together with builtin.onnx: other images need another network.
    assert_eq!(
        images.content_hash(),
        "e482616c6ee10713644096d5fc7d8f9d1a0424c65849b7b199ee78ac7b1d2aa2"
    );
    assert_eq!(images.slice(0..20), super::images(Part::Report, 20));
}

#[test]
fn parts_differ_and_are_balanced() {
    let data = dataset(SplitSizes { calibration: 20, search: 30, report: 30 });
    assert_eq!(data.classes.len(), 10);
    assert_eq!((data.calibration.len(), data.search.len(), data.report.len()), (20, 30, 30));
    assert_ne!(data.search.pixels, data.report.pixels);
    for class in 0..10 {
        assert_eq!(data.report.labels.iter().filter(|&&label| label == class).count(), 3);
    }
}

#[test]
fn every_image_has_something_to_see() {
    let images = images(Part::Search, 300);
    for index in 0..images.len() {
        let pixels = images.image(index);
        let mean = pixels.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / pixels.len() as f64;
        let variance = pixels.iter().map(|&pixel| (f64::from(pixel) - mean).powi(2)).sum::<f64>();
        assert!(variance / pixels.len() as f64 > 30.0, "image {index} is flat");
    }
}

#[test]
fn the_network_is_read_and_fits_the_images() {
    let network = crate::Network::from_bytes(NAME, network_bytes(), None).unwrap();
    let totals = crate::totals(&network.plan);
    assert_eq!(network.plan.values[network.plan.input].dims, DIMS);
    assert_eq!(network.plan.values[network.plan.output].dims, [CLASSES.len()]);
    // Normalization is folded, so there are fewer parameters than were trained.
    assert!((240_000..256_154).contains(&totals.parameters), "{totals:?}");
    assert!(
        network.plan.weights.iter().any(|weights| weights.dims[1] == 1),
        "has depthwise layers"
    );
}
