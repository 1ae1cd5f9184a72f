//! Search spaces: parameters with domains, conditions and constraints; configurations and their
//! content hashes.
//!
//! A [`Space`] is a description. [`Space::compile`] solves its conditions and constraints once,
//! into a decision diagram. Valid configurations can then be counted, numbered, sampled evenly and
//! varied without ever trying an invalid one. This crate does not know the meaning or the quality
//! of a configuration.
//!
//! ```
//! use paretune_spaces::{Domain, Parameter, Space};
//! use rand::SeedableRng;
//!
//! let mut space = Space::new();
//! space.parameters.push(Parameter::new("algorithm", Domain::choice(["direct", "gemm"])));
//! space.parameters.push(
//! Parameter::new("tile", Domain::sizes([1, 2, 4, 8])).when("algorithm == 'gemm'".parse()?),
//! );
//! space.parameters.push(Parameter::new("unroll", Domain::sizes([1, 2, 4])));
//! space.constraints.push("tile * unroll <= 8".parse()?);
//! let space = space.compile()?;
//! assert_eq!(space.len(), Some(3 + 9));
//! let point = space.sample(&mut rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(0));
//! let config = space.decode(&point);
//! assert_eq!(space.encode(&config)?, point);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod compiled;
mod count;
mod diagram;
mod domain;
mod encode;
mod expression;
mod file;
mod moves;
mod point;
mod residual;
mod separator;
mod space;
pub mod t1;
mod value;

pub use compiled::CompiledSpace;
pub use diagram::INACTIVE;
pub use domain::{Domain, Kind};
pub use encode::EncodeError;
pub use expression::{Comparison, EvaluationError, Expression, Operation, ParseError};
pub use file::SpaceFile;
pub use point::Point;
pub use space::{Parameter, Space, SpaceError};
pub use value::{Configuration, Value};
