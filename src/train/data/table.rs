//! CSV files: a line of names, then a line an example.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::dataset::{Array, Kind};
use crate::tensors::Tensor;

/// The columns of a table, in the order of the file: numbers as doubles; a column with a word in it as the numbers of its classes.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Vec<Array>, String> {
    let names = header(file)?;
    let mut words: Vec<Option<Word>> = vec![None; names.len()];
    let mut count = 0;
    for_each_record(file, names.len(), |record| {
        count += 1;
        for (word, text) in words.iter_mut().zip(record) {
            if word.is_none() && text.parse::<f64>().is_err() {
                *word = Some(Word { line: line(file, record), text: text.to_owned() });
            }
        }
    })?;
    let mut columns: Vec<Cells> = words
        .into_iter()
        .map(|word| match word {
            None => Cells::Numbers(Vec::with_capacity(count)),
            Some(word) => Cells::Texts(word, Vec::with_capacity(count)),
        })
        .collect();
    for_each_record(file, names.len(), |record| {
        columns.iter_mut().zip(record).for_each(|(column, text)| column.push(text))
    })?;
    let array = |(name, cells): (String, Cells)| {
        let (tensor, kind) = match cells {
            Cells::Numbers(numbers) => (Tensor::of(&[count], &numbers), Kind::Column),
            Cells::Texts(word, texts) => classes(word, &texts),
        };
        Array { name, path: path.to_owned(), tensor, kind }
    };
    Ok(names.into_iter().zip(columns).map(array).collect())
}

/// What a column holds.
enum Cells {
    Numbers(Vec<f64>),
    Texts(Word, Vec<String>),
}

impl Cells {
    fn push(&mut self, text: &str) {
        match self {
            // All of the column's texts are numbers: the first pass has seen them.
            Self::Numbers(numbers) => numbers.push(text.parse().unwrap_or(f64::NAN)),
            Self::Texts(_, texts) => texts.push(text.to_owned()),
        }
    }
}

/// What is no number in a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) line: usize,
    pub(super) text: String,
}

fn reader(file: &[u8]) -> csv::Reader<&[u8]> {
    ReaderBuilder::new().trim(Trim::All).flexible(true).from_reader(file)
}

/// The names of the columns, which no two share.
fn header(file: &[u8]) -> Result<Vec<String>, String> {
    let names: Vec<String> =
        reader(file).headers().map_err(|error| error.to_string())?.iter().map(str::to_owned).collect();
    if names.iter().all(|name| name.parse::<f64>().is_ok()) {
        return Err("its first line does not name the columns".into());
    }
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("its column {} has no name", at + 1));
        }
        if names[..at].contains(name) {
            return Err(format!("it has two columns '{name}'"));
        }
    }
    Ok(names)
}

fn for_each_record(file: &[u8], width: usize, mut each: impl FnMut(&StringRecord)) -> Result<(), String> {
    let mut reader = reader(file);
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| error.to_string())? {
        if record.len() != width {
            return Err(format!(
                "line {} has {} fields, and there are {width} columns",
                line(file, &record),
                record.len()
            ));
        }
        each(&record);
    }
    Ok(())
}

/// Where a record begins, counted from 1: behind the line ends of the records before it, some of which its position does not count.
fn line(file: &[u8], record: &StringRecord) -> usize {
    let position = record.position().and_then(|position| usize::try_from(position.byte()).ok());
    let (before, rest) = file.split_at(position.unwrap_or(0).min(file.len()));
    let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    1 + before.iter().chain(ends).filter(|&&byte| byte == b'\n').count()
}

/// The classes of a column are its texts in sorted order.
fn classes(word: Word, texts: &[String]) -> (Tensor, Kind) {
    let mut names = texts.to_vec();
    names.sort_unstable();
    names.dedup();
    let numbers: Vec<i64> = texts.iter().map(|text| names.partition_point(|name| name < text) as i64).collect();
    (Tensor::of(&[numbers.len()], &numbers), Kind::Classes { names, word })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(text: &str) -> Result<Vec<Array>, String> {
        read(Path::new("t.csv"), text.as_bytes())
    }

    #[test]
    fn numbers_are_doubles_and_words_are_classes_in_sorted_order() {
        let text = "\u{feff}a, kind,b\r\n1,rose,-2.5e3\r\n 2 ,\"iris, blue\",0\r\n3,rose,nan\r\n";
        let found = columns(text).expect("a table");
        assert_eq!(found.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["a", "kind", "b"]);
        assert_eq!((&found[0].tensor, &found[0].kind), (&Tensor::of(&[3], &[1.0, 2.0, 3.0]), &Kind::Column));
        assert_eq!(found[1].tensor, Tensor::of(&[3], &[1_i64, 0, 1]));
        let names = vec!["iris, blue".to_owned(), "rose".to_owned()];
        assert_eq!(found[1].kind, Kind::Classes { names, word: Word { line: 2, text: "rose".to_owned() } });
        assert_eq!(found[2].tensor.to_f64s()[..2], [-2500.0, 0.0]);
    }

    #[test]
    fn the_first_word_of_a_column_is_kept_with_its_line() {
        let found = columns("a,b\n1,2\n3,\n5,six\n").expect("a table");
        let Kind::Classes { word, .. } = &found[1].kind else { panic!("b holds words") };
        assert_eq!(word, &Word { line: 3, text: String::new() });
    }

    #[test]
    fn malformed_tables_are_refused() {
        for (text, what) in [
            ("1,2\n3,4\n", "does not name the columns"),
            ("", "does not name the columns"),
            ("a,a\n1,2\n", "two columns 'a'"),
            ("a,\n1,2\n", "column 2 has no name"),
            ("a,b\n1,2\n3\n", "line 3 has 1 fields"),
            ("a,b\r\n1,2\r\n\r\n3,4,5", "line 4 has 3 fields"),
        ] {
            let error = columns(text).expect_err(text);
            assert!(error.contains(what), "{text:?}: {error}");
        }
        assert!(read(Path::new("t.csv"), b"a,b\n1,\xff\n").expect_err("no text").contains("UTF-8"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_table_panics(text in "[ab1.,;\"\n\r -]{0,40}") {
            if let Ok(found) = columns(&text) {
                prop_assert!(found.iter().all(|column| column.tensor.shape() == found[0].tensor.shape()));
            }
        }
    }
}
