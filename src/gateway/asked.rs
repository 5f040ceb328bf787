//! What handlers take from the query of a request: typed parameters, which are what the API document says of them.

use std::num::IntErrorKind;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::errors::{Kind, Refusal};
use super::limits;
use super::service::query::LONGEST;

/// The query of a request. What is not asked for is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|error| Refusal::new(Kind::BadRequest, error.body_text()))?;
        read(pairs.0).map(Self)
    }
}

/// Reads parameters: an empty one says nothing, of one that is there twice the first counts, and `name[key]=value` is an entry of `name`.
fn read<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, Refusal> {
    let mut said = Map::new();
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        let entry = name.strip_suffix(']').and_then(|name| name.split_once('['));
        if let Some((name, key)) = entry {
            if let Value::Object(entries) = said.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                entries.entry(key).or_insert(Value::String(value));
            }
        } else {
            said.entry(name).or_insert(Value::String(value));
        }
    }
    serde_path_to_error::deserialize(Value::Object(said)).map_err(|error| {
        let name = error.path().to_string();
        let message = crate::plan::status_text::cut(&error.inner().to_string(), 512);
        Refusal::bad(&name, format!("{name}: {message}"))
    })
}

/// A whole number of at least `LEAST`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Number<const DEFAULT: usize, const LEAST: usize>(pub usize);

impl<const DEFAULT: usize, const LEAST: usize> Default for Number<DEFAULT, LEAST> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<const DEFAULT: usize, const LEAST: usize> TryFrom<String> for Number<DEFAULT, LEAST> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = whole(&text).filter(|number| *number >= LEAST);
        number.map(Self).ok_or_else(|| format!("give a whole number of at least {LEAST}"))
    }
}

/// A whole number; one that is too large to count is the largest.
fn whole(text: &str) -> Option<usize> {
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(usize::MAX),
        Err(_) => None,
    }
}

impl<const DEFAULT: usize, const LEAST: usize> PartialSchema for Number<DEFAULT, LEAST> {
    fn schema() -> RefOr<Schema> {
        let whole = ObjectBuilder::new().schema_type(Type::Integer).default(Some(DEFAULT.into()));
        whole.minimum(Some(LEAST)).build().into()
    }
}

impl<const DEFAULT: usize, const LEAST: usize> ToSchema for Number<DEFAULT, LEAST> {}

/// A length of a page: at most a hundred.
pub type Length<const DEFAULT: usize> = Number<DEFAULT, 1>;

impl<const DEFAULT: usize> Length<DEFAULT> {
    /// The length, within the longest.
    #[must_use]
    pub fn bounded(self) -> usize {
        self.0.min(LONGEST)
    }
}

/// Yes or no.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Flag(pub bool);

impl TryFrom<String> for Flag {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "false" | "0" => Ok(Self(false)),
            "true" | "1" => Ok(Self(true)),
            _ => Err("give true or false"),
        }
    }
}

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Boolean).default(Some(false.into())).build().into()
    }
}

impl ToSchema for Flag {}

/// How long an answer may wait for what was asked for, in seconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Wait(pub Duration);

impl TryFrom<String> for Wait {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let most = limits::LONGEST_WAIT.as_secs();
        let seconds = text.parse().ok().filter(|seconds| *seconds <= most);
        seconds
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| format!("give a number of seconds, at most {most}"))
    }
}

impl PartialSchema for Wait {
    fn schema() -> RefOr<Schema> {
        let whole = ObjectBuilder::new().schema_type(Type::Integer).default(Some(0.into())).minimum(Some(0));
        whole.maximum(Some(u32::try_from(limits::LONGEST_WAIT.as_secs()).unwrap_or(u32::MAX))).build().into()
    }
}

impl ToSchema for Wait {}

/// How long to wait.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Patience {
    /// Seconds the answer may wait until it is done
    #[param(inline)]
    pub wait: Wait,
}

/// A moment.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Moment(pub jiff::Timestamp);

impl TryFrom<String> for Moment {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self).map_err(|_| "give an ISO 8601 time such as 2027-01-15T07:00:00Z")
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        let time = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(time)).build().into()
    }
}

impl ToSchema for Moment {}

/// Which lines of a log are read.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Lines {
    /// How many lines, the newest
    #[param(inline)]
    pub lines: Number<100, 1>,
    /// Only those after this time
    #[param(inline)]
    pub since: Option<Moment>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Deserialize, Debug, Default)]
    #[serde(default)]
    struct Asked {
        limit: Length<20>,
        other: Length<20>,
        offset: Number<0, 0>,
        retry: Flag,
        wait: Wait,
        since: Option<Moment>,
        metadata: BTreeMap<String, String>,
        x: Option<String>,
    }

    fn asked(query: &str) -> Result<Asked, Refusal> {
        let uri = format!("/?{query}").parse().unwrap();
        read(axum::extract::Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn queries_are_read_and_what_they_leave_out_has_its_default() {
        let query =
            asked("limit=500&offset=3&retry=1&wait=30&metadata[team]=a%20b&since=2027-01-15T07:00:00Z&x=&x=&unknown=1").unwrap();
        assert_eq!((query.limit.bounded(), query.other.bounded(), query.offset.0), (100, 20, 3));
        assert!(query.retry.0 && query.since.is_some());
        assert_eq!(query.wait.0, Duration::from_secs(30));
        assert_eq!(query.metadata, [("team".to_owned(), "a b".to_owned())].into());
        assert_eq!(query.x, None);
        assert_eq!(asked("limit=18446744073709551616").unwrap().limit.bounded(), 100);
        assert_eq!(asked("x=first&x=second").unwrap().x.as_deref(), Some("first"));
    }

    #[test]
    fn what_cannot_be_read_names_its_parameter() {
        for (bad, name) in [
            ("limit=0", "limit"),
            ("limit=x", "limit"),
            ("limit[a]=3", "limit"),
            ("offset=-1", "offset"),
            ("retry=yes", "retry"),
            ("wait=31", "wait"),
            ("since=yesterday", "since"),
            ("metadata=a", "metadata"),
        ] {
            let refused = asked(bad).unwrap_err();
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::BadRequest, Some(name)), "{bad}");
            assert!(refused.message.starts_with(name), "{}", refused.message);
        }
    }
}
