//! The examples that a model is trained with and evaluated on: from files, through the model's inputs, to batches.
//!
//! ```
//! use isaac::model::{Dim, TensorType};
//! use isaac::proto::tensor_proto::DataType;
//! use isaac::train::data::{Batches, Dataset, Examples, Input, Role};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("flowers.csv");
//! # std::fs::write(&path, "length,width,kind\n5.1,3.5,iris\n4.9,3.0,rose\n6.2,2.9,iris\n")?;
//! let dataset = Dataset::load(&[path])?;
//! let input = |name: &str, elem: DataType, sizes: &[Dim], role| Input {
//!     name: name.to_owned(),
//!     tensor_type: TensorType { elem: elem as i32, shape: Some(sizes.to_vec()) },
//!     role,
//! };
//! let batch = Dim::Symbol("batch".to_owned());
//! let inputs = [
//!     input("x", DataType::Float, &[batch.clone(), Dim::Known(2)], Role::Data),
//!     input("labels", DataType::Int64, &[batch], Role::Labels),
//! ];
//! let examples = Examples::new(&dataset, &inputs, &[("labels".to_owned(), "kind".to_owned())])?;
//! let batches = Batches::new(&examples, 2)?;
//! let feeds = batches.shuffled(0, 1).batch(0);
//! assert_eq!(feeds[0].1.shape(), [2, 2]);
//! # Ok(())
//! # }
//! ```

mod batches;
mod builtin;
mod check;
mod convert;
mod dataset;
mod error;
mod examples;
mod features;
mod idx;
mod npm;
mod pairing;
mod table;

pub use batches::{Batches, Epoch};
pub use builtin::{Builtin, Split};
pub use dataset::Dataset;
pub use error::DataError;
pub use examples::Examples;
pub use pairing::{Input, Role};
