//! Which array is fed to which input.

use super::DataError;
use super::dataset::{Array, Dataset, list};
use super::features::{FEATURES, numeric, with_features};
use crate::model::TensorType;

/// What an input is fed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What the model predicts from.
    Data,
    /// What it is to predict.
    Labels,
    /// How much each example counts.
    Weights,
}

/// An input that is fed with examples: its first axis counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it is declared as.
    pub tensor_type: TensorType,
    /// What it is fed with.
    pub role: Role,
}

impl Role {
    /// What arrays for it are commonly called.
    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::Data => &["x", "data", "image", "images", "input", "inputs", FEATURES],
            Self::Labels => &["y", "label", "labels", "target", "targets"],
            Self::Weights => &["weight", "weights", "example_weights", "sample_weight", "sample_weights"],
        }
    }

    pub(super) fn is_usual(self, array: &Array) -> bool {
        self.usual_names().iter().any(|name| array.name.eq_ignore_ascii_case(name))
    }
}

/// The array of each input, in the order of the inputs: the one that is bound to it, or has its name, or is the only one with a name
/// that is usual for its role, or is the only one left.
pub(super) fn pair(
    dataset: &Dataset,
    inputs: &[Input],
    bindings: &[(String, String)],
) -> Result<Vec<Array>, DataError> {
    let arrays = with_features(dataset.described(), inputs, bindings)?;
    let mut pairing = Pairing { inputs, arrays: &arrays, chosen: vec![None; inputs.len()] };
    pairing.bind(bindings)?;
    pairing.same_names();
    for role in [Role::Data, Role::Labels, Role::Weights] {
        pairing.usual_name(role)?;
    }
    pairing.what_is_left();
    pairing.finish()
}

struct Pairing<'a> {
    inputs: &'a [Input],
    arrays: &'a [Array],
    /// By input: the position of its array.
    chosen: Vec<Option<usize>>,
}

impl Pairing<'_> {
    fn bind(&mut self, bindings: &[(String, String)]) -> Result<(), DataError> {
        for (input, array) in bindings {
            let Some(at) = self.inputs.iter().position(|known| known.name == *input) else {
                return Err(self.error(format!("'{array}' is bound to '{input}', which is no input")));
            };
            let Some(source) = self.array(array) else {
                return Err(self.error(format!("'{input}' is bound to '{array}', and no array has that name")));
            };
            if self.chosen[at].replace(source).is_some_and(|old| old != source) {
                return Err(self.error(format!("'{input}' is bound to two arrays")));
            }
        }
        Ok(())
    }

    fn array(&self, name: &str) -> Option<usize> {
        self.arrays.iter().position(|array| array.name == name)
    }

    fn same_names(&mut self) {
        for (at, input) in self.inputs.iter().enumerate() {
            self.chosen[at] = self.chosen[at].or_else(|| self.array(&input.name));
        }
    }

    /// Gives the only input of this role that lacks an array the only array of a usual name, whatever else that is fed to.
    fn usual_name(&mut self, role: Role) -> Result<(), DataError> {
        let (Some(at), None) = self.lacking(Some(role)) else { return Ok(()) };
        let is_taken =
            |array| (0..self.inputs.len()).any(|at| self.inputs[at].role == role && self.chosen[at] == Some(array));
        let candidates: Vec<usize> =
            (0..self.arrays.len()).filter(|&array| role.is_usual(&self.arrays[array]) && !is_taken(array)).collect();
        match candidates[..] {
            [] => Ok(()),
            [only] => {
                self.chosen[at] = Some(only);
                Ok(())
            }
            [first, second, ..] => {
                let [first, second] = [first, second].map(|array| &self.arrays[array].name);
                Err(self.error(format!("'{}' could be fed '{first}' or '{second}'", self.inputs[at].name)))
            }
        }
    }

    /// Gives the only input that lacks an array the only array that is left. For data that is also the only array that there is, if it
    /// is bound to the labels.
    fn what_is_left(&mut self) {
        let (Some(at), None) = self.lacking(None) else { return };
        let role = self.inputs[at].role;
        let others: &[Role] = match role {
            Role::Data => &[Role::Labels, Role::Weights],
            Role::Labels => &[Role::Data, Role::Weights],
            Role::Weights => return,
        };
        let is_left = |&array: &usize| {
            let is_free = !self.chosen.contains(&Some(array));
            let is_of_others = others.iter().any(|other| other.is_usual(&self.arrays[array]));
            is_free && !is_of_others || role == Role::Data && self.arrays.len() == 1
        };
        let mut left = (0..self.arrays.len()).filter(is_left);
        if let (Some(only), None) = (left.next(), left.next()) {
            self.chosen[at] = Some(only);
        }
    }

    /// The first two inputs without an array, of a role or of all.
    fn lacking(&self, role: Option<Role>) -> (Option<usize>, Option<usize>) {
        let is_lacking =
            |&at: &usize| self.chosen[at].is_none() && role.is_none_or(|role| self.inputs[at].role == role);
        let mut lacking = (0..self.inputs.len()).filter(is_lacking);
        (lacking.next(), lacking.next())
    }

    fn finish(self) -> Result<Vec<Array>, DataError> {
        if let (Some(at), _) = self.lacking(None) {
            return Err(self.error(format!("it is not clear which array '{}' is fed", self.inputs[at].name)));
        }
        let arrays = self.chosen.iter().flatten().map(|&array| self.arrays[array].clone());
        let paired: Vec<Array> = arrays.collect();
        for (input, array) in self.inputs.iter().zip(&paired) {
            if input.role != Role::Labels {
                numeric(array)?;
            }
        }
        Ok(paired)
    }

    fn error(&self, what: String) -> DataError {
        let role = |role| match role {
            Role::Data => "data",
            Role::Labels => "labels",
            Role::Weights => "weights",
        };
        let input = |input: &Input| format!("{}: {} ({})", input.name, input.tensor_type, role(input.role));
        DataError::Pairing {
            what,
            inputs: list(self.inputs.iter().map(input)),
            arrays: list(self.arrays.iter().map(Array::describe)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::Dim;
    use crate::proto::tensor_proto::DataType;
    use crate::tensors::Tensor;
    use crate::train::data::Examples;

    fn input(name: &str, elem: DataType, sizes: &[u64], role: Role) -> Input {
        let sizes = sizes.iter().map(|&size| Dim::Known(size));
        let shape = std::iter::once(Dim::Symbol("batch".to_owned())).chain(sizes).collect();
        Input { name: name.to_owned(), tensor_type: TensorType { elem: elem as i32, shape: Some(shape) }, role }
    }

    /// A classifier's, and an auto-encoder's.
    fn inputs(labels: &str) -> [Input; 2] {
        let data = input("pixels", DataType::Float, &[2], Role::Data);
        match labels {
            "classes" => [data, input("labels", DataType::Int64, &[], Role::Labels)],
            _ => [data, input("labels", DataType::Float, &[2], Role::Labels)],
        }
    }

    fn dataset(names: &[&str]) -> Dataset {
        let array = |name: &&str| Array::whole(name, &PathBuf::from("d.npz"), Tensor::of(&[1, 2], &[1.0_f32, 2.0]));
        Dataset::new(names.iter().map(array).collect()).expect("names that differ")
    }

    fn bindings(text: &str) -> Vec<(String, String)> {
        let binding = |pair: &str| {
            let (input, array) = pair.split_once('=').expect("input=array");
            (input.to_owned(), array.to_owned())
        };
        text.split_whitespace().map(binding).collect()
    }

    /// The names of the arrays, or the first line of the error.
    fn paired(dataset: &Dataset, inputs: &[Input], bound: &str) -> Result<Vec<String>, String> {
        match pair(dataset, inputs, &bindings(bound)) {
            Ok(arrays) => Ok(arrays.into_iter().map(|array| array.name).collect()),
            Err(error) => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
        }
    }

    #[test]
    fn arrays_are_found_by_name_by_usual_name_and_as_what_is_left() {
        for (arrays, bound, expected) in [
            (&["labels", "pixels", "other"][..], "", ["pixels", "labels"]),
            (&["images", "labels"], "", ["images", "labels"]),
            (&["X", "Y"], "", ["X", "Y"]),
            (&["x", "y", "other"], "", ["x", "y"]),
            (&["pixels", "digit"], "", ["pixels", "digit"]),
            (&["scans", "y"], "", ["scans", "y"]),
            (&["x_train", "y_train", "x_test"], "pixels=x_train labels=y_train", ["x_train", "y_train"]),
            (&["pixels", "labels", "other"], "labels=other", ["pixels", "other"]),
            // Auto-encoders.
            (&["images", "labels"], "labels=images", ["images", "images"]),
            (&["scans"], "labels=scans", ["scans", "scans"]),
            (&["a", "b"], "labels=a pixels=a", ["a", "a"]),
        ] {
            let found = paired(&dataset(arrays), &inputs("classes"), bound);
            assert_eq!(found, Ok(expected.map(str::to_owned).to_vec()), "{arrays:?} {bound}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_missing_is_refused() {
        for (arrays, bound, error) in [
            (&["x", "images", "y"][..], "", "'pixels' could be fed 'x' or 'images'"),
            (&["a", "b"], "", "it is not clear which array 'pixels' is fed"),
            (&["a", "b", "y"], "", "it is not clear which array 'pixels' is fed"),
            (&["x"], "", "it is not clear which array 'labels' is fed"),
            (&["images", "labels"], "labels=image", "'labels' is bound to 'image', and no array has that name"),
            (&["images", "labels"], "label=images", "'images' is bound to 'label', which is no input"),
            (&["images", "labels"], "labels=images labels=labels", "'labels' is bound to two arrays"),
        ] {
            assert_eq!(
                paired(&dataset(arrays), &inputs("classes"), bound),
                Err(error.to_owned()),
                "{arrays:?} {bound}"
            );
        }
        let weights = input("example_weights", DataType::Float, &[], Role::Weights);
        let [data, labels] = inputs("classes");
        let all = [data, labels, weights];
        let error = "it is not clear which array 'example_weights' is fed".to_owned();
        assert_eq!(paired(&dataset(&["x", "y", "w"]), &all, ""), Err(error));
        let found = paired(&dataset(&["x", "y", "sample_weight"]), &all, "");
        assert_eq!(found, Ok(["x", "y", "sample_weight"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn the_error_lists_inputs_and_arrays() {
        let error = pair(&dataset(&["a", "b"]), &inputs("classes"), &[]).expect_err("ambiguous").to_string();
        let expected = "it is not clear which array 'pixels' is fed
  inputs of the model:
    pixels: float[batch, 2] (data)
    labels: int64[batch] (labels)
  arrays of the data:
    a: float[1, 2]
    b: float[1, 2]
";
        assert_eq!(error, expected);
    }

    /// What the inputs are fed from a table.
    fn fed(text: &str, inputs: &[Input], bound: &str) -> Result<Vec<Tensor>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).expect("a file");
        let dataset = Dataset::load(&[path]).map_err(|error| error.to_string())?;
        let examples = Examples::new(&dataset, inputs, &bindings(bound)).map_err(|error| error.to_string())?;
        let rows: Vec<usize> = (0..examples.len()).collect();
        Ok(examples.feeds(&rows).into_iter().map(|(_, tensor)| tensor).collect())
    }

    #[test]
    fn columns_that_are_nobody_s_are_stacked() {
        let data = Tensor::of(&[2, 2], &[1.0_f32, 3.0, 2.0, 4.0]);
        let labels = Tensor::of(&[2], &[1_i64, 0]);
        for (text, bound) in [
            ("a,kind,b\n1,rose,3\n2,iris,4\n", "labels=kind"),
            ("a,b,y\n1,3,1\n2,4,0\n", ""),
            ("a,b,labels\n1,3,b\n2,4,a\n", ""),
            ("labels,a,b,cls\n9,9,9,9\n9,9,9,9\n", "labels=cls"),
        ] {
            let found = fed(text, &inputs("classes"), bound);
            match bound {
                // Three columns are left for two features.
                "labels=cls" => assert!(found.expect_err(text).contains("double[2, 3]"), "{text}"),
                _ => assert_eq!(found, Ok(vec![data.clone(), labels.clone()]), "{text}"),
            }
        }
        let found = fed("a,b\n1,3\n2,4\n", &inputs("same"), "labels=features");
        assert_eq!(found, Ok(vec![data.clone(), data]));
    }

    #[test]
    fn columns_named_like_inputs_are_themselves() {
        let inputs = [
            input("age", DataType::Float, &[1], Role::Data),
            input("height", DataType::Float, &[], Role::Data),
            input("labels", DataType::Int64, &[], Role::Labels),
        ];
        let found = fed("height,name,age,labels\n1.5,x,30,2\n", &inputs, "");
        let expected = vec![Tensor::of(&[1, 1], &[30.0_f32]), Tensor::of(&[1], &[1.5_f32]), Tensor::of(&[1], &[2_i64])];
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn words_are_refused_where_numbers_are_needed() {
        for (text, bound, what) in [
            ("a,b,y\n1,3,0\n2,x,1\n", "", "line 3, column 'b': 'x' is no number"),
            ("a,b,y\n1,,0\n", "", "line 2, column 'b': '' is no number"),
            ("a,y\n1,0\nx,0\n", "pixels=a", "line 3, column 'a': 'x' is no number"),
            ("a,b,y\n1,2,0.5\n", "", "holds 0.5, which int64 does not have"),
        ] {
            let error = fed(text, &inputs("classes"), bound).expect_err(text);
            assert!(error.contains(what), "{error}");
        }
    }
}
