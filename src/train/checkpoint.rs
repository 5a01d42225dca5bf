//! Where a run stands, on disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::report::EpochRecord;
use crate::replace::replace;
use crate::tensors::{Tensor, TensorsError, safetensors};

/// The metadata key of the file.
const METADATA: &str = "isaac.checkpoint";
/// The version of what is under that key.
const VERSION: u32 = 2;
/// What stands before the names of carried tensors, and of those of the best epoch.
const CARRIED: &str = "carried/";
const BEST: &str = "best/";

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// How many steps have been made.
    pub step: u64,
    /// The seconds that they took.
    pub seconds: f64,
    /// Of the epoch that is under way: the weighted sum of the losses of its examples.
    pub loss_sum: f64,
    /// How much those examples count, together.
    pub loss_weight: f64,
    /// The epochs that are done.
    pub epochs: Vec<EpochRecord>,
    /// The epoch with the lowest loss of the evaluation, and that loss.
    pub best: Option<(u64, f64)>,
}

/// A run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Which run.
    pub identity: Identity,
    /// How far it has come.
    pub progress: Progress,
    /// What it carries, by name.
    pub carried: BTreeMap<String, Tensor>,
    /// What it carried after its best epoch; empty if it does not keep that.
    pub best: BTreeMap<String, Tensor>,
}

/// Why a checkpoint cannot be written or resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be written.
    #[error("cannot write the checkpoint {}; the last one is as it was", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] TensorsError),
    /// The file is no checkpoint of this run.
    #[error("cannot resume {}: {what}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    identity: Identity,
    progress: Progress,
}

impl Checkpoint {
    /// Puts the checkpoint in the place of the file at `path`, which holds the old one or the new one at every moment. The old one is
    /// kept at [`Checkpoint::previous`]: parameters that are still finite may have begun to grow without bound.
    ///
    /// # Errors
    /// What the system says; the file is then as it was.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Write { path: path.to_owned(), source };
        let header = Header { version: VERSION, identity: self.identity.clone(), progress: self.progress.clone() };
        let header = serde_json::to_string(&header).map_err(|error| failed(error.into()))?;
        let prefixed = |prefix: &str, tensors: &BTreeMap<String, Tensor>| {
            tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect::<Vec<_>>()
        };
        let tensors: Vec<(String, Tensor)> =
            [prefixed(CARRIED, &self.carried), prefixed(BEST, &self.best)].into_iter().flatten().collect();
        let metadata = [(METADATA.to_owned(), header)].into();
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        if path.exists() {
            let keep = |copy: &mut File| std::io::copy(&mut File::open(path)?, copy).map(|_| ());
            replace(&Self::previous(path), keep).map_err(failed)?;
        }
        safetensors::save(path, tensors, &metadata).map_err(failed)
    }

    /// Where the checkpoint before the one at `path` is kept.
    pub fn previous(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".previous");
        name.into()
    }

    /// Reads the checkpoint at `path`, to go on with a run.
    ///
    /// # Errors
    /// A file that is no checkpoint, or one of another run.
    pub fn load(path: &Path, identity: &Identity) -> Result<Self, CheckpointError> {
        let other = |what| CheckpointError::Other { path: path.to_owned(), what };
        let safetensors::Contents { tensors, metadata } = safetensors::read(path)?;
        let header = metadata.get(METADATA).ok_or_else(|| other("it is no checkpoint".into()))?;
        let header: Header = serde_json::from_str(header).map_err(|error| other(error.to_string()))?;
        if header.version != VERSION {
            return Err(other(format!("it has version {}, and {VERSION} is the only one known", header.version)));
        }
        if let Some(what) = header.identity.difference(identity) {
            return Err(other(what));
        }
        let of = |prefix: &str| {
            let stripped =
                |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
            tensors.iter().filter_map(stripped).collect()
        };
        Ok(Self { identity: header.identity, progress: header.progress, carried: of(CARRIED), best: of(BEST) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.safetensors");
        let identity = Identity { seed: u64::MAX, ..Identity::default() };
        // Sums that a reader of decimals gets wrong by a bit, if it does not take care.
        for loss_sum in [0.921_608_543_644_348_7_f64 * 48.0, 1.0 / 3.0, f64::MIN_POSITIVE, 1e300_f64.sqrt().sqrt()] {
            let epochs = vec![EpochRecord { epoch: 1, step: 7, train_loss: f64::NAN, eval: None, seconds: 0.1 + 0.2 }];
            let best = Some((1, loss_sum));
            let progress = Progress { step: 9, seconds: 0.1, loss_sum, loss_weight: 14.0, epochs, best };
            let tensors = |value: f32| BTreeMap::from([("w".to_owned(), Tensor::of(&[2], &[value, -0.0]))]);
            let checkpoint =
                Checkpoint { identity: identity.clone(), progress, carried: tensors(1e-40), best: tensors(3.0) };
            checkpoint.save(&path).expect("a file");
            let Checkpoint { progress, carried, best, .. } = Checkpoint::load(&path, &identity).expect("the same run");
            assert_eq!(progress.loss_sum.to_bits(), loss_sum.to_bits());
            assert_eq!(progress.best, checkpoint.progress.best);
            assert!(progress.epochs[0].train_loss.is_nan());
            assert_eq!(progress.epochs[0].seconds, 0.1 + 0.2);
            assert_eq!((carried, best), (checkpoint.carried, checkpoint.best));
        }
    }

    #[test]
    fn the_checkpoint_before_the_last_one_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.safetensors");
        let steps = |path: &Path| Checkpoint::load(path, &Identity::default()).map(|found| found.progress.step).ok();
        let mut found = Vec::new();
        for step in 1..=3 {
            let progress = Progress { step, ..Progress::default() };
            let (carried, best) = (BTreeMap::new(), BTreeMap::new());
            let checkpoint = Checkpoint { identity: Identity::default(), progress, carried, best };
            checkpoint.save(&path).expect("a file");
            found.push((steps(&Checkpoint::previous(&path)), steps(&path)));
        }
        assert_eq!(found, [(None, Some(1)), (Some(1), Some(2)), (Some(2), Some(3))]);
    }
}
