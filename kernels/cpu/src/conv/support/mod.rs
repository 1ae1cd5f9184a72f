//! Parts that several convolution algorithms share.

pub(crate) mod buffer;
pub(crate) mod depthwise;
pub(crate) mod epilogue;
pub(crate) mod epilogue_i8;
pub(crate) mod indirection;
pub(crate) mod layouts;
pub mod packing;
pub(crate) mod pad;
pub(crate) mod planar;
pub(crate) mod request;
pub(crate) mod split;
pub(crate) mod taps;
pub(crate) mod tiles;
