//! From text to kernels. What is not known is an error: nothing is skipped that could matter.

use super::decode::{Decoder, Names};
use super::instruction::Line;
use super::{Kernel, Parameter};

/// The entry points of a text.
pub(super) fn kernels(text: &str) -> Result<Vec<Kernel>, String> {
    let mut parser = Parser { lines: text.lines().enumerate(), number: 0, dynamic: None };
    let mut kernels = Vec::new();
    while let Some(line) = parser.next() {
        if let Some(name) = line.strip_prefix(".visible .entry ").and_then(|rest| rest.strip_suffix('(')) {
            kernels.push(parser.kernel(name)?);
        } else if line.starts_with(".extern .shared ") {
            let (name, align, _) = array(&line.replacen(".extern ", "", 1)).ok_or_else(|| parser.unknown(line))?;
            parser.dynamic = Some((name, align));
        } else if !is_harmless(line) {
            return Err(parser.unknown(line));
        }
    }
    Ok(kernels)
}

/// What stands outside of kernels and says nothing that an interpreter must know. Constants are among it: a kernel that names one is refused.
fn is_harmless(line: &str) -> bool {
    [".version ", ".target ", ".address_size 64", ".global "].iter().any(|start| line.starts_with(start))
}

/// Name, alignment and bytes of `.shared .align ALIGN .b8 NAME[BYTES];`; an array without a size has none.
fn array(line: &str) -> Option<(String, usize, usize)> {
    let words: Vec<&str> = line.strip_suffix(';')?.split_whitespace().collect();
    let [".shared", ".align", align, ".b8", array] = words.as_slice() else {
        return None;
    };
    let (name, size) = array.strip_suffix(']')?.split_once('[')?;
    let size = if size.is_empty() { 0 } else { size.parse().ok()? };
    Some((name.to_owned(), align.parse().ok()?, size))
}

/// Prefix, kind and count of `.reg KIND %PREFIX<COUNT>;`.
fn registers(line: &str) -> Option<(&str, &str, usize)> {
    let words: Vec<&str> = line.strip_suffix(';')?.split_whitespace().collect();
    let [".reg", kind, file] = words.as_slice() else {
        return None;
    };
    let (prefix, count) = file.strip_prefix('%')?.strip_suffix('>')?.split_once('<')?;
    Some((prefix, kind, count.parse().ok()?))
}

struct Parser<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    number: usize,
    /// Name and alignment of the shared memory whose size a launch gives.
    dynamic: Option<(String, usize)>,
}

impl<'a> Parser<'a> {
    /// The next line that says something, without comments.
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let (index, line) = self.lines.next()?;
            self.number = index + 1;
            let line = line.split("//").next().unwrap_or_default().trim();
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    fn need(&mut self) -> Result<&'a str, String> {
        self.next().ok_or_else(|| "the text ends within a kernel".to_owned())
    }

    fn unknown(&self, line: &str) -> String {
        format!("line {} is not known: {line}", self.number)
    }

    fn kernel(&mut self, name: &str) -> Result<Kernel, String> {
        let (parameters, max_threads) = self.head()?;
        let mut names = Names { dynamic: self.dynamic.clone(), ..Names::default() };
        names.parameters = parameters.iter().map(|parameter| (parameter.name.clone(), parameter.clone())).collect();
        let mut code: Vec<(usize, &str)> = Vec::new();
        loop {
            let line = self.need()?;
            if line == "}" {
                break;
            } else if line.starts_with(".pragma ") {
                continue;
            } else if let Some(label) = line.strip_suffix(':') {
                names.labels.insert(label.to_owned(), code.len());
            } else if line.starts_with('.') {
                names.declare(line).ok_or_else(|| self.unknown(line))?;
            } else {
                code.push((self.number, line.strip_suffix(';').ok_or_else(|| self.unknown(line))?));
            }
        }
        let mut decoder = Decoder::new(names);
        let code: Vec<Line> = code
            .into_iter()
            .map(|(number, text)| {
                decoder.line(number, text).ok_or_else(|| format!("line {number} is not known: {text}"))
            })
            .collect::<Result<_, _>>()?;
        let (registers, shared_bytes) = decoder.finish();
        Ok(Kernel { name: name.to_owned(), parameters, shared_bytes, max_threads, registers, code })
    }

    /// Parameters and limits, up to the body.
    fn head(&mut self) -> Result<(Vec<Parameter>, u32), String> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut max_threads = 1024;
        loop {
            let line = self.need()?;
            if let Some(parameter) = line.strip_prefix(".param .") {
                let (kind, name) = parameter.trim_end_matches(',').split_once(' ').ok_or_else(|| self.unknown(line))?;
                let size = match kind {
                    "u32" | "f32" => 4,
                    "u64" => 8,
                    _ => return Err(self.unknown(line)),
                };
                let end = parameters.last().map_or(0, |last| last.offset + last.size);
                parameters.push(Parameter { name: name.trim().to_owned(), offset: end.next_multiple_of(size), size });
            } else if let Some(limits) = line.strip_prefix(".maxntid ") {
                let sizes = limits.split(',').map(|size| size.trim().parse::<u32>());
                max_threads = sizes.collect::<Result<Vec<_>, _>>().map_err(|_| self.unknown(line))?.iter().product();
            } else if line.starts_with(".minnctapersm ") {
                // A wish of the compiler that makes the code.
            } else if line == "{" {
                return Ok((parameters, max_threads));
            } else if line != ")" {
                return Err(self.unknown(line));
            }
        }
    }
}

impl Names {
    /// Registers, or an array in shared memory.
    fn declare(&mut self, line: &str) -> Option<()> {
        if let Some((name, align, size)) = array(line) {
            let start = self.shared_bytes.next_multiple_of(align);
            self.shared_bytes = start + size;
            self.shared.insert(name, start);
            return Some(());
        }
        let (prefix, kind, count) = registers(line)?;
        let files = match kind {
            ".pred" => &mut self.predicates,
            ".b64" | ".f64" => &mut self.longs,
            ".b32" | ".f32" | ".b16" => &mut self.words,
            _ => return None,
        };
        files.declare(prefix, count);
        Some(())
    }
}
