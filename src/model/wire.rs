//! The protobuf wire format, as far as is needed to cut a message into its fields without decoding them.
//!
//! <https://protobuf.dev/programming-guides/encoding/>. A [`Field`] knows where its record lies in the file, so that what an edit
//! does not touch can be copied from there byte for byte.

use std::ops::Range;

/// One field record of a message: `tag`, then a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// Field number.
    pub(crate) number: u32,
    /// Where the record lies, from the first byte of its tag.
    pub(crate) record: Range<usize>,
    /// Where the payload lies; for length-delimited fields, behind the length.
    pub(crate) payload: Range<usize>,
    /// Whether the payload is length-delimited (a message, a string, bytes).
    pub(crate) delimited: bool,
}

/// A message that the wire format forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct WireError {
    offset: usize,
    what: &'static str,
}

/// The fields of the message that fills `bytes[range]`, in file order. Offsets count from the start of `bytes`.
pub(crate) fn fields(bytes: &[u8], range: Range<usize>) -> Result<Vec<Field>, WireError> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let field = field(bytes, at, range.end)?;
        at = field.record.end;
        found.push(field);
    }
    Ok(found)
}

fn field(bytes: &[u8], start: usize, end: usize) -> Result<Field, WireError> {
    let (key, after_key) = varint(bytes, start, end)?;
    let fail = |what| WireError { offset: start, what };
    let number = u32::try_from(key >> 3).map_err(|_| fail("field number out of range"))?;
    if number == 0 {
        return Err(fail("field number 0"));
    }
    let fixed = |width| Some(after_key..after_key.checked_add(width)?);
    let payload = match key & 7 {
        0 => Some(after_key..varint(bytes, after_key, end)?.1),
        1 => fixed(8),
        2 => {
            let (length, begin) = varint(bytes, after_key, end)?;
            usize::try_from(length).ok().and_then(|length| Some(begin..begin.checked_add(length)?))
        }
        5 => fixed(4),
        _ => return Err(fail("unknown wire type")),
    };
    match payload {
        Some(payload) if payload.end <= end => {
            Ok(Field { number, record: start..payload.end, payload, delimited: key & 7 == 2 })
        }
        _ => Err(fail("a field that ends behind its message (the file is truncated or damaged)")),
    }
}

fn varint(bytes: &[u8], start: usize, end: usize) -> Result<(u64, usize), WireError> {
    let mut value = 0;
    for (count, byte) in bytes[start..end].iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * count);
        if byte & 0x80 == 0 {
            return Ok((value, start + count + 1));
        }
    }
    Err(WireError { offset: start, what: "an unfinished number (the file is truncated or damaged)" })
}

/// Tag and length in front of a length-delimited payload.
pub(crate) fn delimiter(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(length as u64, &mut bytes);
    bytes
}

/// The value of an integer field; 0 where it is none.
pub(crate) fn integer(bytes: &[u8], field: &Field) -> i64 {
    varint(bytes, field.payload.start, field.payload.end).map_or(0, |(value, _)| value as i64)
}

/// A whole record of an integer field.
pub(crate) fn number(number: u32, value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::int64::encode(number, &value, &mut bytes);
    bytes
}

/// A whole length-delimited record that holds `message`.
pub(crate) fn record(number: u32, message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = delimiter(number, message.encoded_len());
    message.encode_raw(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_tile_their_message() {
        // 1: varint 300; 2: "ab"; 3: fixed32; 4: fixed64
        let bytes = [0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x1d, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0];
        let found = fields(&bytes, 0..bytes.len()).unwrap();
        assert_eq!(found.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(found[1].payload, 5..7);
        assert_eq!(found.last().unwrap().record.end, bytes.len());
        assert!(found.windows(2).all(|pair| pair[0].record.end == pair[1].record.start));
    }

    #[test]
    fn damage_is_an_error_with_its_offset() {
        for (bytes, offset) in [
            (&[0x12, 5, b'a'][..], 0),    // length beyond the end
            (&[0x08, 0x01, 0x08][..], 3), // tag without a value
            (&[0x0b][..], 0),             // group: not in proto3
            (&[0x00, 0x00][..], 0),       // field number 0
            (&[0x08, 0xff, 0xff][..], 1), // varint without an end
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], 0), // length 2^64-1
        ] {
            assert_eq!(fields(bytes, 0..bytes.len()).unwrap_err().offset, offset, "{bytes:?}");
        }
    }

    #[test]
    fn record_is_read_back() {
        let entry = crate::proto::OperatorSetIdProto { domain: Some("ai.isaac".into()), version: Some(1) };
        let bytes = record(8, &entry);
        let found = fields(&bytes, 0..bytes.len()).unwrap();
        assert_eq!((found.len(), found[0].number, found[0].record.end), (1, 8, bytes.len()));
        assert_eq!(prost::Message::decode(&bytes[found[0].payload.clone()]), Ok(entry));
    }
}
