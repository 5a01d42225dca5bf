//! Records of steps and epochs.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::number::{self, Number};

/// A training step. In JSON, numbers that are not finite are the strings `inf`, `-inf` and `NaN`.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct StepRecord {
    /// How many steps the run has taken with this one.
    pub step: u64,
    /// The epoch that it belongs to, from 1.
    pub epoch: u64,
    /// The loss of its batch, before the update.
    #[serde(with = "number")]
    pub loss: f64,
    /// Its learning rate.
    #[serde(with = "number")]
    pub lr: f64,
    /// Its damping λ; infinity is the plain gradient.
    #[serde(with = "number")]
    pub lambda: f64,
    /// The time that training has taken so far, without evaluations.
    #[serde(with = "number")]
    pub seconds: f64,
}

/// An epoch, or as much of the last one as a run makes before its last step. In JSON, numbers that are not finite are the strings `inf`, `-inf` and `NaN`.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct EpochRecord {
    /// Its number, from 1.
    pub epoch: u64,
    /// How many steps the run has taken with it.
    pub step: u64,
    /// The mean loss of its steps.
    #[serde(with = "number")]
    pub train_loss: f64,
    /// What the evaluation after it has given.
    #[serde(default)]
    pub eval: Option<Scores>,
    /// The time that training has taken so far, without evaluations.
    #[serde(with = "number")]
    pub seconds: f64,
}

/// The values of an evaluation by name, in order: `loss` and metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores(Vec<(String, f64)>);

impl Scores {
    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for Scores {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(values: I) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(name, value)| (name, Number(value))))
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ScoresVisitor)
    }
}

struct ScoresVisitor;

impl<'de> Visitor<'de> for ScoresVisitor {
    type Value = Scores;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
        let mut scores = Vec::new();
        while let Some((name, Number(value))) = map.next_entry()? {
            scores.push((name, value));
        }
        Ok(Scores(scores))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The record of a step, of two in an epoch.
    pub(in super::super) fn step(step: u64) -> StepRecord {
        let seconds = 0.25 * step as f64;
        StepRecord { step, epoch: step.div_ceil(2), loss: 1.0 / step as f64, lr: 0.1, lambda: f64::INFINITY, seconds }
    }

    /// The record of an epoch of two steps.
    pub(in super::super) fn epoch(epoch: u64) -> EpochRecord {
        let eval = Some([("loss", 0.5 / epoch as f64), ("accuracy", 1.0 - 0.5 / epoch as f64)].into_iter().collect());
        EpochRecord { epoch, step: 2 * epoch, train_loss: 1.0 / epoch as f64, eval, seconds: 0.5 * epoch as f64 }
    }

    #[test]
    fn records_survive_json() {
        let step = step(3);
        let text = serde_json::to_string(&step).unwrap();
        assert!(text.ends_with(r#""lr":0.1,"lambda":"inf","seconds":0.75}"#), "{text}");
        assert_eq!(serde_json::from_str::<StepRecord>(&text).unwrap(), step);
        let epoch = epoch(2);
        let text = serde_json::to_string(&epoch).unwrap();
        let expected = r#"{"epoch":2,"step":4,"train_loss":0.5,"eval":{"loss":0.25,"accuracy":0.75},"seconds":1.0}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<EpochRecord>(&text).unwrap(), epoch);
    }

    #[test]
    fn numbers_that_are_not_finite_survive_json() {
        let numbers = [("a", f64::NAN), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", 1.0)];
        let text = serde_json::to_string(&Scores::from_iter(numbers)).unwrap();
        assert_eq!(text, r#"{"a":"NaN","b":"inf","c":"-inf","d":1.0}"#);
        let read: Scores = serde_json::from_str(&text).unwrap();
        assert!(read.get("a").unwrap().is_nan());
        assert!(read.iter().skip(1).eq(numbers.into_iter().skip(1)));
        assert_eq!(serde_json::from_str::<Scores>(r#"{"a":3}"#).unwrap().get("a"), Some(3.0));
        assert!(serde_json::from_str::<Scores>(r#"{"a":"much"}"#).is_err());
    }
}
