//! Whether a safetensors file is whole: its header parses and its tensors fill it exactly. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::fs::Reader;
use super::lost_weights::{Place, SAMPLED};
use super::{FileSystem, Reason, RelPath, limits};

/// What a safetensors header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The names of the tensors.
    pub tensors: BTreeSet<String>,
    /// The bytes all tensors take together; they lie without gaps after the header.
    pub data_bytes: u64,
    /// Where a few of the tensors begin.
    pub(crate) sampled: Vec<Place>,
}

/// Where the header of a file of `size` bytes ends, from the file's first bytes.
///
/// # Errors
/// What is wrong with the length.
pub fn header_end(first: &[u8], size: u64) -> Result<u64, String> {
    let Some(length) = first.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Err(format!("it has {size} bytes, too few for a header"));
    };
    if length > limits::SAFETENSORS_HEADER_BYTES {
        return Err(format!("its header claims {length} bytes"));
    }
    let end = length + 8;
    if end > size {
        return Err(format!("its header ends at byte {end} of {size}"));
    }
    Ok(end)
}

/// Parses a header (without the length before it).
///
/// # Errors
/// When it is not JSON of the right shape, or offsets are reversed, overlap or leave gaps.
pub fn parse_header(header: impl Read) -> serde_json::Result<Header> {
    let mut parser = serde_json::Deserializer::from_reader(io::BufReader::new(header));
    let value = Header::deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// Checks a safetensors file of `size` bytes; its header, and where that ends.
pub(crate) fn check<F: FileSystem + ?Sized>(fs: &F, path: &RelPath, size: u64) -> Result<(Header, u64), Reason> {
    let bad = |problem: String| Reason::BadSafetensors { file: path.to_string(), problem: super::cut(&problem, 200).to_owned() };
    let first = fs.read(path, 0, 8).map_err(|error| Reason::of_error(path, &error))?;
    let end = header_end(&first, size).map_err(bad)?;
    let mut reader = Reader::new(fs, path, 8, end);
    let header = parse_header(&mut reader).map_err(|error| match reader.failure.take() {
        Some(failure) => Reason::of_error(path, &failure),
        None => bad(format!("its header does not parse: {error}")),
    })?;
    let expected = end.checked_add(header.data_bytes);
    if expected != Some(size) {
        let expected = expected.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string());
        return Err(bad(format!("it has {size} bytes, its header promises {expected}")));
    }
    Ok((header, end))
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

#[derive(Deserialize)]
struct Tensor {
    #[serde(default)]
    dtype: String,
    data_offsets: (u64, u64),
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut filled: u64 = 0;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Tensor { dtype, data_offsets: (begin, end) } = map.next_value()?;
            let length = end.checked_sub(begin);
            let sum = length.and_then(|length| filled.checked_add(length));
            filled = sum.ok_or_else(|| A::Error::custom("data_offsets are out of order"))?;
            header.data_bytes = header.data_bytes.max(end);
            header.tensors.insert(name);
            let place = Place::first(&dtype, (begin, end)).filter(|_| header.sampled.len() < SAMPLED);
            header.sampled.extend(place);
        }
        if filled != header.data_bytes {
            return Err(A::Error::custom("data_offsets overlap or leave gaps"));
        }
        Ok(header)
    }
}
