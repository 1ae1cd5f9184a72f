//! Merging of the axes of broadcast operands.

use paretune_base::plan::layout::Layout;
use paretune_cpu::operators::Physical;
use paretune_cpu::testing::{Axis, broadcast_strides, merge};

#[test]
fn equal_shapes_merge_into_one_axis() {
    let dims = [2, 8, 5, 5];
    let full = vec![200, 25, 5, 1];
    assert_eq!(merge(&dims, &[full.clone(), full]), [Axis { size: 400, strides: [1, 1] }]);
}

#[test]
fn per_channel_factors_merge_to_rows() {
    let out = Physical::new(2, &[8, 5, 5], Layout::Nchw);
    let strides = [vec![200, 25, 5, 1], broadcast_strides(2, &[8, 1, 1], 3, &out, Layout::Nchw)];
    assert_eq!(
        merge(&out.dims, &strides),
        [Axis { size: 16, strides: [25, 1] }, Axis { size: 25, strides: [1, 0] }]
    );
    let out = Physical::new(2, &[8, 5, 5], Layout::Nhwc);
    let strides = [vec![200, 40, 8, 1], broadcast_strides(2, &[8, 1, 1], 3, &out, Layout::Nhwc)];
    assert_eq!(merge(&out.dims, &strides).last(), Some(&Axis { size: 8, strides: [1, 1] }));
}
