//! Which jobs a list of Strongly is asked for, and in which order. Pure.

use serde::Deserialize;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::job::JobStatus;
use crate::gateway::asked::Length;
use crate::gateway::service::query::{FURTHEST, Field, NEWEST_FIRST, Sort};

/// Which jobs are listed.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default, rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub struct Jobs {
    /// Only those that are so far
    #[param(inline)]
    pub status: Option<JobStatus>,
    /// Only those of this base model, by name or alias
    pub base_model: Option<String>,
    /// Only those whose name or description contains this
    pub search: Option<String>,
    /// Jobs on the page; more than 100 count as 100
    #[param(inline)]
    pub limit: Length<20>,
    /// Jobs that come before the page, at most 10000
    #[param(inline)]
    pub offset: Offset,
    /// A field and its direction, such as `createdAt:desc`; ascending when no direction is given
    #[param(inline)]
    pub sort: Order,
}

/// How many entries come before a page.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Offset(pub usize);

impl TryFrom<String> for Offset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let offset = text.parse().ok().filter(|offset| *offset <= FURTHEST);
        offset.map(Self).ok_or_else(|| format!("give a number, at most {FURTHEST}: narrow longer lists with search or status"))
    }
}

impl PartialSchema for Offset {
    fn schema() -> RefOr<Schema> {
        let whole = ObjectBuilder::new().schema_type(Type::Integer).default(Some(0.into()));
        whole.minimum(Some(0)).maximum(Some(FURTHEST)).build().into()
    }
}

impl ToSchema for Offset {}

/// An order such as `createdAt:desc`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Order(pub Sort);

/// What lists can be sorted by.
const FIELDS_OF_LISTS: [(&str, Field); 7] = [
    ("createdAt", Field::Created),
    ("updatedAt", Field::Updated),
    ("startedAt", Field::Started),
    ("finishedAt", Field::Finished),
    ("name", Field::Name),
    ("status", Field::Status),
    ("baseModel", Field::BaseModel),
];

impl Default for Order {
    fn default() -> Self {
        Self(NEWEST_FIRST)
    }
}

impl TryFrom<String> for Order {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, direction) = text.split_once(':').unwrap_or((&text, "asc"));
        let field = FIELDS_OF_LISTS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
        match (field, direction) {
            (Some(field), "asc" | "desc") => Ok(Self(Sort { field, descending: direction == "desc" })),
            (Some(_), _) => Err("the direction is asc or desc".into()),
            (None, _) => Err(format!("give one of {}, with :asc or :desc", FIELDS_OF_LISTS.map(|(known, _)| known).join(", "))),
        }
    }
}

impl PartialSchema for Order {
    fn schema() -> RefOr<Schema> {
        let pattern = format!("^({})(:(asc|desc))?$", FIELDS_OF_LISTS.map(|(known, _)| known).join("|"));
        let text = ObjectBuilder::new().schema_type(Type::String).default(Some("createdAt:desc".into()));
        text.pattern(Some(pattern)).build().into()
    }
}

impl ToSchema for Order {}
