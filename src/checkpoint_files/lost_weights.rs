//! Whether weights have ceased to be numbers. A gradient that is no number makes one of every weight it reaches, so the first value
//! of a few tensors tells. Pure.

use super::{FileSystem, RelPath};

/// Tensors looked at in one file.
pub(crate) const SAMPLED: usize = 16;

/// A number of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    float: Float,
    /// Bytes after the header.
    offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Float {
    F16,
    BF16,
    F32,
    F64,
}

impl Place {
    /// The first number of a tensor; nothing where it holds none that could be NaN.
    pub(crate) fn first(dtype: &str, (begin, end): (u64, u64)) -> Option<Self> {
        let float = match dtype {
            "F16" => Float::F16,
            "BF16" => Float::BF16,
            "F32" => Float::F32,
            "F64" => Float::F64,
            _ => return None,
        };
        (end > begin).then_some(Self { float, offset: begin })
    }

    fn is_nan<F: FileSystem + ?Sized>(self, fs: &F, path: &RelPath, data: u64) -> Option<bool> {
        let bytes = fs.read(path, data.checked_add(self.offset)?, 8).ok()?;
        let half = || bytes.first_chunk().map(|bytes| u16::from_le_bytes(*bytes) & 0x7fff);
        Some(match self.float {
            Float::F16 => half()? > 0x7c00,
            Float::BF16 => half()? > 0x7f80,
            Float::F32 => f32::from_le_bytes(*bytes.first_chunk()?).is_nan(),
            Float::F64 => f64::from_le_bytes(*bytes.first_chunk()?).is_nan(),
        })
    }
}

/// Whether more than half of the tensors begin with NaN; one of many may be a buffer that nobody fills.
pub(crate) fn are_lost<F: FileSystem + ?Sized>(fs: &F, path: &RelPath, data: u64, places: &[Place]) -> bool {
    let looked: Vec<_> = places.iter().filter_map(|place| place.is_nan(fs, path, data)).collect();
    let lost = looked.iter().filter(|lost| **lost).count();
    lost * 2 > looked.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint_files::testing::MemoryFs;

    fn lost(dtype: &str, values: &[&[u8]]) -> bool {
        let fs = MemoryFs::new();
        fs.write("w", values.concat());
        let mut at = 0;
        let places = values.iter().filter_map(|value| {
            let begin = at;
            at += value.len() as u64;
            Place::first(dtype, (begin, at))
        });
        are_lost(&fs, &RelPath::parse("w").unwrap(), 0, &places.collect::<Vec<_>>())
    }

    #[test]
    fn nan_is_known_in_every_kind_of_float_and_infinity_is_a_value() {
        let cases: [(&str, &[u8], &[u8]); 4] = [
            ("F16", &0x7e00_u16.to_le_bytes(), &0x7c00_u16.to_le_bytes()),
            ("BF16", &0xffc0_u16.to_le_bytes(), &0xff80_u16.to_le_bytes()),
            ("F32", &f32::NAN.to_le_bytes(), &f32::NEG_INFINITY.to_le_bytes()),
            ("F64", &f64::NAN.to_le_bytes(), &1e300_f64.to_le_bytes()),
        ];
        for (dtype, nan, number) in cases {
            assert!(lost(dtype, &[nan]) && lost(dtype, &[number, nan, nan]), "{dtype}");
            assert!(!lost(dtype, &[number]) && !lost(dtype, &[number, nan]), "{dtype}");
        }
        assert!(!lost("I64", &[&[0xff; 8]]) && !lost("F32", &[]));
    }
}
