use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::table::Word;
use super::{DataError, idx, table};
use crate::tensors::{self, Tensor, TensorsError};

/// Arrays by name, whose first axes count the examples.
#[derive(Debug, Clone)]
pub struct Dataset {
    arrays: Vec<Array>,
}

/// An array with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Array {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) tensor: Tensor,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// An array of its own.
    Whole,
    /// A table's column of numbers.
    Column,
    /// A table's column of texts, of which `word` is the first that is no number: positions in the sorted `names`.
    Classes { names: Vec<String>, word: Word },
}

impl Dataset {
    /// Reads files whose arrays belong together: .npz, .npy (an array of the file's name), .safetensors, .csv, and the idx files of
    /// MNIST under any other name. Of the latter, bytes with one axis are the int64 `labels`, and with more axes the `images`, as
    /// floats from 0 to 1. A CSV file begins with the names of its columns. CSV and idx files may be compressed (.gz).
    ///
    /// # Errors
    /// A file that cannot be read, and two arrays of one name.
    pub fn load(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut arrays = Vec::new();
        for path in paths {
            arrays.extend(read(path)?);
        }
        Self::new(arrays)
    }

    pub(super) fn new(arrays: Vec<Array>) -> Result<Self, DataError> {
        let mut paths = BTreeMap::new();
        for Array { name, path, .. } in &arrays {
            if let Some(first) = paths.insert(name.as_str(), path) {
                return Err(DataError::SameName { array: name.clone(), first: first.clone(), second: path.clone() });
            }
        }
        Ok(Self { arrays })
    }

    /// The arrays with their names, in the order of the files.
    pub fn arrays(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.arrays.iter().map(|array| (array.name.as_str(), &array.tensor))
    }

    pub(super) fn described(&self) -> &[Array] {
        &self.arrays
    }

    /// The classes of a table's column of texts, in the order of their numbers.
    pub fn classes(&self, column: &str) -> Option<&[String]> {
        self.arrays.iter().find(|array| array.name == column).and_then(|array| match &array.kind {
            Kind::Classes { names, .. } => Some(names.as_slice()),
            Kind::Whole | Kind::Column => None,
        })
    }

    /// The same data with classes numbered as in `other`: what is evaluated on may lack some that the training data has.
    ///
    /// # Errors
    /// A class that `other` does not have, and a column that is of numbers in one of the two only.
    pub fn with_classes_of(mut self, other: &Self) -> Result<Self, DataError> {
        for array in &mut self.arrays {
            if let Some(theirs) = other.arrays.iter().find(|theirs| theirs.name == array.name) {
                let of_array = |what| TensorsError::Format {
                    path: array.path.clone(),
                    what: format!("'{}' {what} in {}", array.name, theirs.path.display()),
                };
                array.tensor = array.renumbered(&theirs.kind).map_err(of_array)?;
                array.kind = theirs.kind.clone();
            }
        }
        Ok(self)
    }
}

impl Array {
    pub(super) fn whole(name: &str, path: &Path, tensor: Tensor) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), tensor, kind: Kind::Whole }
    }

    /// Name, type and shape, as a line of a list.
    pub(super) fn describe(&self) -> String {
        let classes = match &self.kind {
            Kind::Classes { names, .. } => format!(" ({} classes)", names.len()),
            Kind::Whole | Kind::Column => String::new(),
        };
        format!("{}: {}{classes}", self.name, self.tensor.describe())
    }

    /// The elements as `kind` numbers the classes.
    fn renumbered(&self, kind: &Kind) -> Result<Tensor, String> {
        match (&self.kind, kind) {
            (Kind::Classes { names, .. }, Kind::Classes { names: wanted, .. }) => {
                let number = |name| match wanted.binary_search(name) {
                    Ok(number) => Ok(number as i64),
                    Err(_) => Err(format!("holds the class '{name}', and not")),
                };
                let numbers = names.iter().map(number).collect::<Result<Vec<i64>, _>>()?;
                let classes = self.tensor.elements::<i64>().unwrap_or_default();
                let classes: Vec<i64> = classes.iter().map(|&class| numbers[class as usize]).collect();
                Ok(Tensor::of(self.tensor.shape(), &classes))
            }
            (Kind::Classes { word, .. }, _) => {
                Err(format!("holds '{}' in line {}, and numbers only", word.text, word.line))
            }
            (_, Kind::Classes { .. }) => Err("holds numbers, and classes with other names".into()),
            (Kind::Whole | Kind::Column, Kind::Whole | Kind::Column) => Ok(self.tensor.clone()),
        }
    }
}

/// Refuses arrays whose first axes differ.
pub(super) fn same_length(arrays: &[Array]) -> Result<(), DataError> {
    let length = |array: &Array| array.tensor.shape().first().copied();
    if arrays.windows(2).all(|pair| length(&pair[0]) == length(&pair[1])) {
        return Ok(());
    }
    Err(DataError::Lengths { arrays: list(arrays.iter().map(Array::describe)) })
}

/// As lines of a message.
pub(super) fn list(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| format!("    {line}\n")).collect()
}

fn read(path: &Path) -> Result<Vec<Array>, TensorsError> {
    let extension = |path: &Path| path.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
    if ["npz", "npy", "safetensors"].contains(&extension(path).as_str()) {
        let tensors = tensors::load(path)?;
        return Ok(tensors.into_iter().map(|(name, tensor)| Array::whole(&name, path, tensor)).collect());
    }
    let is_compressed = extension(path) == "gz";
    let content =
        content(path, is_compressed).map_err(|source| TensorsError::Read { path: path.to_owned(), source })?;
    let inner = if is_compressed { path.with_extension("") } else { path.to_owned() };
    let arrays = match extension(&inner).as_str() {
        "csv" => table::read(path, &content),
        _ => idx::read(&content).map(|(name, tensor)| vec![Array::whole(name, path, tensor)]),
    };
    arrays.map_err(|what| TensorsError::Format { path: path.to_owned(), what })
}

fn content(path: &Path, is_compressed: bool) -> std::io::Result<Bytes> {
    let stored = std::fs::read(path)?;
    if !is_compressed {
        return Ok(stored.into());
    }
    let mut content = Vec::new();
    MultiGzDecoder::new(&stored[..]).read_to_end(&mut content)?;
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> (TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
        paths.iter().zip(files).for_each(|(path, (_, content))| std::fs::write(path, content).expect("a file"));
        (folder, paths)
    }

    fn compressed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[test]
    fn files_of_all_kinds_make_one_dataset() {
        let (images, labels) = ([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 1, 255], [0, 0, 8, 1, 0, 0, 0, 1, 4]);
        let files = [
            ("train-images-idx3-ubyte.gz", &compressed(&images)[..]),
            ("train-labels-idx1-ubyte", &labels),
            ("t.csv.gz", &compressed(b"age\n30\n")),
        ];
        let (_folder, mut paths) = folder(&files);
        paths.push("tests/data/alone.npy".into());
        let dataset = Dataset::load(&paths).expect("the files");
        let found: Vec<_> = dataset.arrays().map(|(name, tensor)| (name, tensor.describe())).collect();
        let expected = [("images", "float[1, 1]"), ("labels", "int64[1]"), ("age", "double[1]"), ("alone", "int64[3]")];
        assert_eq!(found, expected.map(|(name, described)| (name, described.to_owned())));
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let (_folder, paths) = folder(&[("a.csv", b"x\n1\n"), ("b.csv", b"x\n2\n"), ("c.txt", b"x"), ("d.gz", b"x")]);
        let same = Dataset::load(&paths[..2]).expect_err("x twice").to_string();
        assert!(same.contains("a.csv") && same.contains("b.csv") && same.ends_with("both hold an array 'x'"), "{same}");
        let missing = "missing.csv".into();
        for path in [&paths[2], &paths[3], &missing] {
            let error = Dataset::load(std::slice::from_ref(path)).expect_err("no data").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn classes_are_numbered_as_in_the_training_data() {
        let (_folder, paths) = folder(&[("a.csv", b"y\na\nc\nb\n"), ("b.csv", b"y\nc\nb\nc\n"), ("d.csv", b"y\nd\n")]);
        let [train, eval, other] = [0, 1, 2].map(|at| Dataset::load(&paths[at..=at]).expect("a table"));
        assert_eq!(train.classes("y").expect("classes"), ["a", "b", "c"]);
        let eval = eval.with_classes_of(&train).expect("known classes");
        assert_eq!(eval.arrays().next(), Some(("y", &Tensor::of(&[3], &[2_i64, 1, 2]))));
        assert_eq!(eval.classes("y"), train.classes("y"));
        let numbers = Dataset::new(vec![Array::whole("y", Path::new("n.npy"), Tensor::of(&[1], &[1.0_f32]))]);
        let numbers = numbers.expect("one array");
        for (data, like, what) in [
            (&other, &train, "'y' holds the class 'd', and not in "),
            (&other, &numbers, "'y' holds 'd' in line 2, and numbers only in n.npy"),
            (&numbers, &other, "'y' holds numbers, and classes with other names in "),
        ] {
            let error = data.clone().with_classes_of(like).expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
