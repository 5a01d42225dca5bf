//! Which array is fed to which input.

use super::DataError;
use super::dataset::{Array, Dataset, Kind};
use crate::model::TensorType;
use crate::tensors::Tensor;

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

    fn is_usual(self, array: &Array) -> bool {
        self.usual_names().iter().any(|name| array.name.eq_ignore_ascii_case(name))
    }
}

/// The array that the columns of a table make which are nothing else.
const FEATURES: &str = "features";

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

/// The arrays, with a table's columns that are nobody's stacked to one.
fn with_features(arrays: &[Array], inputs: &[Input], bindings: &[(String, String)]) -> Result<Vec<Array>, DataError> {
    let is_bound = |input: &Input| bindings.iter().any(|(name, _)| *name == input.name);
    let has_array = |input: &Input| is_bound(input) || arrays.iter().any(|array| array.name == input.name);
    let lacks = |role| inputs.iter().any(|input| input.role == role && !has_array(input));
    let is_wanted = lacks(Role::Data) || bindings.iter().any(|(_, array)| array == FEATURES);
    let is_own = |array: &Array| {
        array.kind == Kind::Whole
            || inputs.iter().any(|input| input.name == array.name && !is_bound(input))
            || bindings.iter().any(|(_, name)| *name == array.name)
            || [Role::Labels, Role::Weights].iter().any(|&role| role.is_usual(array) && lacks(role))
    };
    if !is_wanted || arrays.iter().any(|array| array.name == FEATURES) {
        return Ok(arrays.to_vec());
    }
    let (mut own, columns): (Vec<Array>, Vec<Array>) = arrays.iter().cloned().partition(is_own);
    columns.iter().try_for_each(numeric)?;
    own.extend(stacked(&columns)?);
    Ok(own)
}

/// Refuses a column of words.
fn numeric(array: &Array) -> Result<(), DataError> {
    match &array.kind {
        Kind::Whole | Kind::Column => Ok(()),
        Kind::Classes { word, .. } => {
            let what = format!("line {}, column '{}': '{}' is no number", word.line, array.name, word.text);
            Err(DataError::Format { path: array.path.clone(), what })
        }
    }
}

/// Columns side by side; `None` without any.
fn stacked(columns: &[Array]) -> Result<Option<Array>, DataError> {
    let Some(first) = columns.first() else { return Ok(None) };
    same_length(columns)?;
    let count = first.tensor.shape()[0];
    let width = columns.len();
    let mut numbers = vec![0.0; count * width];
    for (at, column) in columns.iter().enumerate() {
        let target = numbers.iter_mut().skip(at).step_by(width);
        target.zip(column.tensor.to_f64s()).for_each(|(target, number)| *target = number);
    }
    Ok(Some(Array::whole(FEATURES, &first.path, Tensor::of(&[count, width], &numbers))))
}

/// Refuses arrays whose first axes differ.
pub(super) fn same_length(arrays: &[Array]) -> Result<(), DataError> {
    let length = |array: &Array| array.tensor.shape().first().copied();
    if arrays.windows(2).all(|pair| length(&pair[0]) == length(&pair[1])) {
        return Ok(());
    }
    Err(DataError::Lengths { arrays: list(arrays.iter().map(described)) })
}

fn described(array: &Array) -> String {
    let classes = match &array.kind {
        Kind::Classes { names, .. } => format!(" ({} classes)", names.len()),
        Kind::Whole | Kind::Column => String::new(),
    };
    format!("{}: {}{classes}", array.name, array.tensor.describe())
}

fn list(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| format!("    {line}\n")).collect()
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

    /// Gives the only input that lacks an array the only array that nobody is fed, or the only one that there is.
    fn what_is_left(&mut self) {
        let (Some(at), None) = self.lacking(None) else { return };
        let role = self.inputs[at].role;
        let is_others = |array: &Array| {
            [Role::Data, Role::Labels, Role::Weights].iter().any(|&other| other != role && other.is_usual(array))
        };
        let is_free = |array: usize| !self.chosen.contains(&Some(array)) && !is_others(&self.arrays[array]);
        let mut left = (0..self.arrays.len()).filter(|&array| self.arrays.len() == 1 || is_free(array));
        if let (Some(only), None) = (left.next(), left.next())
            && role != Role::Weights
        {
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
            arrays: list(self.arrays.iter().map(described)),
        }
    }
}
