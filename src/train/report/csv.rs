//! Tables of a run: one of steps, and one of epochs beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Observer;
use super::record::{EpochRecord, StepRecord};

const STEP_COLUMNS: &str = "step,epoch,loss,lr,lambda,seconds";
const EPOCH_COLUMNS: &str = "epoch,step,train_loss,seconds";

/// Two CSV files: `run.csv` has a row for each step; beside it `run.epochs.csv` has one for each epoch, with a column
/// `eval_NAME` for each value of the evaluations, empty where there is none. Rows are written at once.
#[derive(Debug)]
pub struct CsvFiles {
    steps: File,
    epochs: File,
    /// The values of an evaluation that have columns.
    scores: Vec<String>,
}

impl CsvFiles {
    /// New files, over those that may be there. `scores` are the names of what evaluations give: words without commas.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn create(path: &Path, scores: &[&str]) -> io::Result<Self> {
        Self::open(path, scores, create)
    }

    /// Goes on with the files of a run that is resumed after `steps` steps and `epochs` epochs: rows of later ones are dropped, and
    /// one that was not written to its end. A file that is not there is made.
    ///
    /// # Errors
    /// Files that cannot be written, or have other columns.
    pub fn resume(path: &Path, scores: &[&str], steps: u64, epochs: u64) -> io::Result<Self> {
        Self::open(path, scores, |path, columns| {
            // Each table counts its rows in the first column.
            resume(path, columns, if columns.starts_with(STEP_COLUMNS) { steps } else { epochs })
        })
    }

    /// Where the table of epochs is, beside that of steps.
    pub fn epochs_path(path: &Path) -> PathBuf {
        path.with_extension("epochs.csv")
    }

    fn open(path: &Path, scores: &[&str], open: impl Fn(&Path, &str) -> io::Result<File>) -> io::Result<Self> {
        let eval_columns: String = scores.iter().map(|name| format!(",eval_{name}")).collect();
        Ok(Self {
            steps: open(path, &format!("{STEP_COLUMNS}\n"))?,
            epochs: open(&Self::epochs_path(path), &format!("{EPOCH_COLUMNS}{eval_columns}\n"))?,
            scores: scores.iter().map(|&name| name.to_owned()).collect(),
        })
    }
}

fn create(path: &Path, columns: &str) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(columns.as_bytes())?;
    Ok(file)
}

fn resume(path: &Path, columns: &str, count: u64) -> io::Result<File> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return create(path, columns),
        Err(error) => return Err(error),
    };
    if columns.starts_with(&text) {
        return create(path, columns);
    }
    let Some(rows) = text.strip_prefix(columns) else {
        let [found, wanted] = [&text, columns].map(|text| text.lines().next().unwrap_or_default());
        let what = format!("{}: its columns are {found}, those of this run are {wanted}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    };
    let stays = |row: &&str| {
        row.ends_with('\n')
            && row.split(',').next().and_then(|cell| cell.parse().ok()).is_some_and(|number: u64| number <= count)
    };
    let length = columns.len() + rows.split_inclusive('\n').take_while(stays).map(str::len).sum::<usize>();
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length as u64)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

// `{:?}` writes numbers in few digits that read back exactly, and what is not finite as `inf` and `NaN`, which pandas knows.
impl Observer for CsvFiles {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        let StepRecord { step, epoch, loss, lr, lambda, seconds } = record;
        self.steps.write_all(format!("{step},{epoch},{loss:?},{lr:?},{lambda:?},{seconds:?}\n").as_bytes())
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        let EpochRecord { epoch, step, train_loss, eval, seconds } = record;
        let mut row = format!("{epoch},{step},{train_loss:?},{seconds:?}");
        for name in &self.scores {
            let score = eval.as_ref().and_then(|scores| scores.get(name));
            row += &score.map_or_else(|| ",".to_owned(), |score| format!(",{score:?}"));
        }
        row.push('\n');
        self.epochs.write_all(row.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{epoch, step};
    use super::*;
    use std::fs;

    const SCORES: [&str; 2] = ["loss", "accuracy"];

    fn paths(folder: &tempfile::TempDir) -> [PathBuf; 2] {
        ["run.csv", "run.epochs.csv"].map(|name| folder.path().join(name))
    }

    /// Writes so many epochs of two steps.
    fn write(mut files: CsvFiles, epochs: std::ops::RangeInclusive<u64>) {
        for number in epochs {
            files.step(&step(2 * number - 1)).unwrap();
            files.step(&step(2 * number)).unwrap();
            files.epoch(&epoch(number)).unwrap();
        }
        files.finish().unwrap();
    }

    #[test]
    fn rows() {
        let folder = tempfile::tempdir().unwrap();
        let [steps, epochs] = paths(&folder);
        let mut files = CsvFiles::create(&steps, &SCORES).unwrap();
        files.step(&StepRecord { loss: f64::NAN, lr: 1e-7, ..step(1) }).unwrap();
        files.epoch(&EpochRecord { eval: None, ..epoch(1) }).unwrap();
        files.epoch(&epoch(2)).unwrap();
        let steps = fs::read_to_string(steps).unwrap();
        assert_eq!(steps, "step,epoch,loss,lr,lambda,seconds\n1,1,NaN,1e-7,inf,0.25\n");
        let epochs = fs::read_to_string(epochs).unwrap();
        let expected = "epoch,step,train_loss,seconds,eval_loss,eval_accuracy\n1,2,1.0,0.5,,\n2,4,0.5,1.0,0.25,0.75\n";
        assert_eq!(epochs, expected);
    }

    #[test]
    fn a_resumed_run_writes_what_one_without_a_break_does() {
        let [whole, broken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write(CsvFiles::create(&paths(&whole)[0], &SCORES).unwrap(), 1..=3);
        let [steps, epochs] = paths(&broken);
        for (resumed, torn_at) in [(1, 0), (1, 5), (0, 20)] {
            write(CsvFiles::create(&steps, &SCORES).unwrap(), 1..=2);
            for path in [&steps, &epochs] {
                let text = fs::read(path).unwrap();
                fs::write(path, &text[..text.len() - torn_at]).unwrap();
            }
            write(CsvFiles::resume(&steps, &SCORES, 2 * resumed, resumed).unwrap(), resumed + 1..=3);
            for (path, expected) in [&steps, &epochs].into_iter().zip(paths(&whole)) {
                assert_eq!(fs::read_to_string(path).unwrap(), fs::read_to_string(expected).unwrap());
            }
        }
    }

    #[test]
    fn an_epoch_that_a_run_ended_in_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let [steps, epochs] = paths(&folder);
        let mut files = CsvFiles::create(&steps, &[]).unwrap();
        files.step(&step(1)).unwrap();
        files.epoch(&EpochRecord { step: 1, ..epoch(1) }).unwrap();
        let mut files = CsvFiles::resume(&steps, &[], 1, 0).unwrap();
        files.epoch(&epoch(1)).unwrap();
        assert_eq!(fs::read_to_string(epochs).unwrap(), "epoch,step,train_loss,seconds\n1,2,1.0,0.5\n");
        assert_eq!(fs::read_to_string(steps).unwrap().lines().count(), 2);
    }

    #[test]
    fn resuming_makes_files_that_are_missing_or_torn_in_their_header() {
        let folder = tempfile::tempdir().unwrap();
        let [steps, epochs] = paths(&folder);
        fs::write(&steps, "step,ep").unwrap();
        write(CsvFiles::resume(&steps, &[], 4, 2).unwrap(), 3..=3);
        assert_eq!(fs::read_to_string(steps).unwrap().lines().count(), 3);
        assert_eq!(fs::read_to_string(epochs).unwrap(), "epoch,step,train_loss,seconds\n3,6,0.3333333333333333,1.5\n");
    }

    #[test]
    fn a_row_that_was_not_written_to_its_end_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let [steps, epochs] = paths(&folder);
        write(CsvFiles::create(&steps, &[]).unwrap(), 1..=1);
        let text = fs::read_to_string(&epochs).unwrap();
        fs::write(&epochs, text.clone() + "2,4,0.").unwrap();
        CsvFiles::resume(&steps, &[], 4, 2).unwrap();
        assert_eq!(fs::read_to_string(&epochs).unwrap(), text);
    }

    #[test]
    fn resuming_with_other_columns_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [steps, epochs] = paths(&folder);
        write(CsvFiles::create(&steps, &SCORES).unwrap(), 1..=1);
        let before = fs::read(&epochs).unwrap();
        let error = CsvFiles::resume(&steps, &["loss", "f1"], 2, 1).unwrap_err().to_string();
        assert!(error.ends_with(
            "eval_loss,eval_accuracy, those of this run are epoch,step,train_loss,seconds,eval_loss,eval_f1"
        ));
        assert_eq!(fs::read(&epochs).unwrap(), before);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let [steps, _] = paths(&folder);
        let mut files = CsvFiles::create(&steps, &[]).unwrap();
        files.steps = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(files.step(&step(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
