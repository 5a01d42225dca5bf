//! What TensorBoard reads: events in the framing of TFRecord.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::Observer;
use super::record::{EpochRecord, StepRecord};

/// A message of `event.proto` of TensorFlow.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SESSION_START: i32 = 1;

/// An event file of TensorBoard, with the scalars `train/loss`, `train/lr`, `train/lambda` of each step and `eval/NAME` of each
/// evaluation. Events are written at once.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// A new file in this folder, which is made if it is not there. Of a run that is resumed after `resumed` steps, TensorBoard drops
    /// what older files of the folder say of later steps.
    ///
    /// # Errors
    /// A folder or a file that cannot be written.
    pub fn create(folder: &Path, resumed: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = new_file(folder)?;
        let mut events = Self { file };
        events.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        events.write(resumed.saturating_add(1), What::SessionLog(SessionLog { status: SESSION_START }))?;
        Ok(events)
    }

    fn scalars(&mut self, step: u64, scalars: impl Iterator<Item = (String, f64)>) -> io::Result<()> {
        let value = scalars.map(|(tag, value)| Value { tag, simple_value: Some(value as f32) }).collect();
        self.write(step, What::Summary(Summary { value }))
    }

    fn write(&mut self, step: u64, what: What) -> io::Result<()> {
        self.file.write_all(&record(since_1970(), step, what))
    }
}

impl Observer for EventFile {
    fn step(&mut self, record: &StepRecord) -> io::Result<()> {
        let scalars = [("loss", record.loss), ("lr", record.lr), ("lambda", record.lambda)];
        self.scalars(record.step, scalars.into_iter().map(|(name, value)| (format!("train/{name}"), value)))
    }

    fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        match &record.eval {
            Some(scores) => {
                self.scalars(record.step, scores.iter().map(|(name, value)| (format!("eval/{name}"), value)))
            }
            None => Ok(()),
        }
    }
}

/// TensorBoard reads the files of a folder in the order of their names.
fn new_file(folder: &Path) -> io::Result<File> {
    let (seconds, process) = (since_1970() as u64, std::process::id());
    (0..)
        .map(|number| folder.join(format!("events.out.tfevents.{seconds:010}.isaac.{process}.{number}")))
        .map(File::create_new)
        .find(|made| !matches!(made, Err(error) if error.kind() == io::ErrorKind::AlreadyExists))
        .expect("numbers do not end")
}

fn since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// An event as a record: the length and its checksum, the bytes and theirs.
fn record(wall_time: f64, step: u64, what: What) -> Vec<u8> {
    let bytes = Event { wall_time, step: step as i64, what: Some(what) }.encode_to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    [&length, &checksum(&length)[..], &bytes, &checksum(&bytes)].concat()
}

/// CRC-32C, rotated and shifted: of bytes that hold their own checksums, a plain one would say little.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::record::tests::{epoch, step};
    use super::*;

    /// What TensorBoard 2.21 itself writes for the events of the test below:
    ///
    /// ```python
    /// w = RecordWriter(file)
    /// w.write(Event(wall_time=1.5, file_version="brain.Event:2").SerializeToString())
    /// w.write(Event(wall_time=2.5, step=1, session_log=SessionLog(status=SessionLog.START)).SerializeToString())
    /// w.write(Event(wall_time=3.5, step=300, summary=Summary(value=[
    ///     Summary.Value(tag="train/loss", simple_value=0.0),
    ///     Summary.Value(tag="train/lambda", simple_value=float("inf"))])).SerializeToString())
    /// ```
    const BY_TENSORBOARD: &str = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c\
        0f000000000000006d532b0909000000000000044010013a020801e4ce549236000000000000004f578cef090000000000000c4010ac02\
        2a280a110a0a747261696e2f6c6f737315000000000a130a0c747261696e2f6c616d626461150000807f1cf89832";

    #[test]
    fn records_are_those_of_tensorboard() {
        let value = |tag: &str, value| Value { tag: tag.to_owned(), simple_value: Some(value) };
        let summary = Summary { value: vec![value("train/loss", 0.0), value("train/lambda", f32::INFINITY)] };
        let records = [
            record(1.5, 0, What::FileVersion("brain.Event:2".to_owned())),
            record(2.5, 1, What::SessionLog(SessionLog { status: SESSION_START })),
            record(3.5, 300, What::Summary(summary)),
        ];
        let hexadecimal: String = records.concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hexadecimal, BY_TENSORBOARD);
    }

    /// The events of the files of a folder, file by file.
    fn events(folder: &Path) -> Vec<Vec<Event>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let of_file = |path: PathBuf| {
            let bytes = fs::read(path).unwrap();
            let (mut rest, mut events) = (&bytes[..], Vec::new());
            while let Some((length, behind)) = rest.split_first_chunk() {
                let length = u64::from_le_bytes(*length) as usize;
                events.push(Event::decode(&behind[4..4 + length]).unwrap());
                rest = &behind[length + 8..];
            }
            events
        };
        paths.into_iter().map(of_file).collect()
    }

    /// Steps, names and values.
    fn scalars(events: &[Event]) -> Vec<(i64, String, f32)> {
        let of_event = |event: &Event| match &event.what {
            Some(What::Summary(summary)) => {
                summary.value.iter().map(|value| (event.step, value.tag.clone(), value.simple_value.unwrap())).collect()
            }
            _ => Vec::new(),
        };
        events.iter().flat_map(of_event).collect()
    }

    #[test]
    fn scalars_of_a_run_and_of_its_continuation() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs/zeta");
        let mut file = EventFile::create(&runs, 0).unwrap();
        file.step(&step(1)).unwrap();
        file.step(&step(2)).unwrap();
        file.epoch(&epoch(1)).unwrap();
        file.epoch(&EpochRecord { eval: None, ..epoch(1) }).unwrap();
        let mut file = EventFile::create(&runs, 2).unwrap();
        file.step(&StepRecord { loss: f64::NAN, ..step(3) }).unwrap();

        let [first, second] = &events(&runs)[..] else { panic!("there are two files") };
        let expected = [
            (1, "train/loss", 1.0),
            (1, "train/lr", 0.1),
            (1, "train/lambda", f32::INFINITY),
            (2, "train/loss", 0.5),
            (2, "train/lr", 0.1),
            (2, "train/lambda", f32::INFINITY),
            (2, "eval/loss", 0.5),
            (2, "eval/accuracy", 0.5),
        ];
        assert_eq!(scalars(first), expected.map(|(step, tag, value)| (step, tag.to_owned(), value)));
        assert_eq!(
            (second[1].step, &second[1].what),
            (3, &Some(What::SessionLog(SessionLog { status: SESSION_START })))
        );
        assert!(scalars(second)[0].2.is_nan());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let mut events = EventFile { file: File::options().write(true).open("/dev/full").unwrap() };
        assert_eq!(events.step(&step(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(EventFile::create("/dev/null/runs".as_ref(), 0).is_err());
    }
}
