//! A relative path that cannot leave its root: no `..`, no root, no control characters. Pure.

use std::fmt;

use super::limits;

/// Why a text is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It is empty, begins or ends with `/`, or holds `//`.
    #[error("a component is empty")]
    EmptyComponent,
    /// It holds `.` or `..`.
    #[error("`.` and `..` are not allowed")]
    Dots,
    /// It holds a control character or a backslash.
    #[error("control characters and backslashes are not allowed")]
    Character,
    /// It is longer than [`limits::PATH`].
    #[error("longer than {} bytes", limits::PATH)]
    TooLong,
}

/// A path below a file system's root, with `/` between components; empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(String);

impl RelPath {
    /// The root itself.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Checks a text and takes it as a path.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        if text.len() > limits::PATH {
            return Err(BadPath::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(BadPath::Character);
        }
        for component in text.split('/') {
            match component {
                "" => return Err(BadPath::EmptyComponent),
                "." | ".." => return Err(BadPath::Dots),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path of `tail` below this one.
    ///
    /// # Errors
    /// The first rule `tail`, or the joined path, breaks.
    pub fn join(&self, tail: &str) -> Result<Self, BadPath> {
        let tail = Self::parse(tail)?;
        if self.is_root() {
            return Ok(tail);
        }
        Self::parse(&format!("{}/{}", self.0, tail.0))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The directory that holds this path; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let parent = self.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(Self(parent.to_owned()))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}
