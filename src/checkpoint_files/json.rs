//! JSON as Python writes it: `NaN` and `Infinity` outside strings become `null`, and a field of an
//! unexpected type is left out instead of failing the file. Pure, streaming, bounded.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::fs::Reader;
use super::{FileSystem, Reason, RelPath};

/// Parses one JSON object written by Python.
pub(crate) fn parse<T: DeserializeOwned>(source: impl Read) -> serde_json::Result<T> {
    let mut parser = serde_json::Deserializer::from_reader(BufReader::new(Finite::new(source)));
    let value = parser.deserialize_map(OnlyObject(PhantomData))?;
    parser.end()?;
    Ok(value)
}

/// Takes an object only, where a derived type would take a list as well.
struct OnlyObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyObject<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Parses a JSON file of at most `limit` bytes.
pub(crate) fn parse_file<T: DeserializeOwned, F: FileSystem + ?Sized>(
    fs: &F,
    path: &RelPath,
    size: u64,
    limit: u64,
) -> Result<T, Reason> {
    if size > limit {
        return Err(Reason::TooLarge { file: path.to_string(), size, limit });
    }
    let mut reader = Reader::new(fs, path, 0, size);
    parse(&mut reader).map_err(|error| match reader.failure.take() {
        Some(failure) => Reason::of_error(path, &failure),
        None => Reason::bad_json(path, &error),
    })
}

/// A stream in which the numbers JSON does not have are replaced by `null`.
struct Finite<R> {
    source: BufReader<R>,
    in_string: bool,
    escaped: bool,
    ready: Vec<u8>,
    given: usize,
}

impl<R: Read> Finite<R> {
    fn new(source: R) -> Self {
        let source = BufReader::with_capacity(64 << 10, source);
        Self { source, in_string: false, escaped: false, ready: Vec::new(), given: 0 }
    }

    /// Takes what is buffered up to a word that may have to be replaced.
    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        let buffer = self.source.fill_buf()?;
        let mut taken = 0;
        for &byte in buffer {
            if !self.in_string && matches!(byte, b'N' | b'I' | b'-') {
                break;
            }
            taken += 1;
            if self.escaped {
                self.escaped = false;
            } else if byte == b'"' {
                self.in_string = !self.in_string;
            } else if byte == b'\\' {
                self.escaped = self.in_string;
            }
        }
        self.ready.extend_from_slice(&buffer[..taken]);
        self.source.consume(taken);
        if taken == 0 { self.word() } else { Ok(()) }
    }

    /// Takes one word (a minus sign and the letters after it), replaced where JSON lacks it.
    fn word(&mut self) -> io::Result<()> {
        const LONGEST: usize = "-Infinity".len();
        while self.ready.len() < LONGEST {
            let Some(&byte) = self.source.fill_buf()?.first() else {
                break;
            };
            let sign = byte == b'-' && self.ready.is_empty();
            if !sign && !byte.is_ascii_alphabetic() {
                break;
            }
            self.ready.push(byte);
            self.source.consume(1);
        }
        if matches!(self.ready.as_slice(), b"NaN" | b"Infinity" | b"-Infinity") {
            self.ready = b"null".to_vec();
        }
        Ok(())
    }
}

impl<R: Read> Read for Finite<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given >= self.ready.len() {
            self.refill()?;
        }
        let rest = &self.ready[self.given..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

/// A number, a truth value or a text; nothing for every other value, which is passed over.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Scalar {
    #[default]
    Other,
    Null,
    Bool(bool),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

impl Scalar {
    /// The value as a number; a truth value is none.
    pub(crate) fn number(&self) -> Option<f64> {
        match *self {
            #[expect(clippy::cast_precision_loss, reason = "metrics are floating point anyway")]
            Self::Unsigned(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            _ => None,
        }
    }

    /// The value as a count: an integer, or a float without a fraction.
    pub(crate) fn count(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(number) => Some(number),
            // Up to 2^53 every whole float is exact.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the guard keeps it in range")]
            Self::Float(number) if (0.0..=9_007_199_254_740_992.0).contains(&number) => {
                (number.fract() == 0.0).then_some(number as u64)
            }
            _ => None,
        }
    }

    pub(crate) const fn truth(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    pub(crate) fn into_text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }
    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(truth))
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Unsigned(number))
    }
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating point anyway")]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Float(number as f64))
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(number))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// An object read as `T`; the default of `T` for every other value, which is passed over.
#[derive(Debug, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
