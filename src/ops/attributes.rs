//! The attributes of a node, checked.

use super::Error;
use crate::curvature::Form;

/// Where attributes are read from; `None` is an attribute that the node doesn't have.
pub trait Source {
    /// An attribute that is a number.
    fn float(&self, name: &'static str) -> Result<Option<f32>, Error>;
    /// An attribute that is a whole number.
    fn int(&self, name: &'static str) -> Result<Option<i64>, Error>;
    /// An attribute that is a text.
    fn text(&self, name: &'static str) -> Result<Option<String>, Error>;
}

/// How the operands and the result are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub(super) trans_g: bool,
    pub(super) trans_a: bool,
    pub(super) trans_y: bool,
    /// Number of leading dimensions that index independent layers.
    pub(super) batched: usize,
}

impl Layout {
    pub(super) fn read(source: &impl Source) -> Result<Self, Error> {
        let flag = |name| match source.int(name)? {
            None | Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(Error::Attribute { name, problem: format!("must be 0 or 1, not {other}") }),
        };
        let batched = source.int("batched")?.unwrap_or(0);
        let batched = usize::try_from(batched).map_err(|_| Error::Attribute {
            name: "batched",
            problem: format!("must not be negative, but is {batched}"),
        })?;
        Ok(Self { trans_g: flag("transG")?, trans_a: flag("transA")?, trans_y: flag("transY")?, batched })
    }
}

/// All attributes of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributes {
    /// `None` if only the input gives it.
    pub(super) lambda_a: Option<f64>,
    pub(super) lambda_g: f64,
    pub(super) alpha: f64,
    /// How operands and result are stored.
    pub layout: Layout,
    pub(super) form: Form,
}

impl Attributes {
    /// Reads them.
    ///
    /// # Errors
    /// One that has no meaning, or that cannot be read.
    pub fn read(source: &impl Source) -> Result<Self, Error> {
        let damping = |name| match source.float(name)? {
            Some(value) => check_damping(name, value.into()).map(Some),
            None => Ok(None),
        };
        let form = match source.text("form")? {
            Some(text) => {
                text.parse().map_err(|error| Error::Attribute { name: "form", problem: format!("{error}") })?
            }
            None => Form::Auto,
        };
        Ok(Self {
            lambda_a: damping("lambda_a")?,
            lambda_g: damping("lambda_g")?.unwrap_or(f64::INFINITY),
            alpha: source.float("alpha")?.unwrap_or(1.0).into(),
            layout: Layout::read(source)?,
            form,
        })
    }
}

/// A damping must be positive; it may be infinite.
pub(super) fn check_damping(name: &'static str, value: f64) -> Result<f64, Error> {
    if value > 0.0 { Ok(value) } else { Err(Error::Damping { name, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Node {
        floats: Vec<(&'static str, f32)>,
        ints: Vec<(&'static str, i64)>,
        texts: Vec<(&'static str, &'static str)>,
    }

    fn find<T: Clone>(attributes: &[(&'static str, T)], name: &str) -> Option<T> {
        attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    impl Source for Node {
        fn float(&self, name: &'static str) -> Result<Option<f32>, Error> {
            Ok(find(&self.floats, name))
        }
        fn int(&self, name: &'static str) -> Result<Option<i64>, Error> {
            Ok(find(&self.ints, name))
        }
        fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
            Ok(find(&self.texts, name).map(str::to_owned))
        }
    }

    #[test]
    fn defaults() {
        let attributes = Attributes::read(&Node::default()).unwrap();
        assert_eq!((attributes.lambda_a, attributes.lambda_g, attributes.alpha), (None, f64::INFINITY, 1.0));
        assert_eq!((attributes.layout, attributes.form), (Layout::default(), Form::Auto));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for lambda in [0.0, -1.0, f32::NAN] {
            for name in ["lambda_a", "lambda_g"] {
                let node = Node { floats: vec![(name, lambda)], ..Node::default() };
                assert!(Attributes::read(&node).unwrap_err().to_string().starts_with(name));
            }
        }
        for (name, value) in [("transG", 2), ("transA", -1), ("transY", 7), ("batched", -2)] {
            let node = Node { ints: vec![(name, value)], ..Node::default() };
            let message = Attributes::read(&node).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(&value.to_string()), "{message}");
        }
        let node = Node { texts: vec![("form", "gram")], ..Node::default() };
        assert!(Attributes::read(&node).unwrap_err().to_string().contains("\"gram\""));
    }
}
