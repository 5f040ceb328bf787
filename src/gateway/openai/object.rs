//! What all objects of OpenAI have: the name of their type, and lists of them. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::asked::Length;
use crate::gateway::errors::Refusal;

/// An object that lists are paged by.
pub trait Listed {
    /// Its id.
    fn id(&self) -> &str;
}

/// That it is a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::JobObject)]
pub enum JobObject {
    /// The one name.
    #[serde(rename = "fine_tuning.job")]
    Job,
}

/// That it is an event of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::EventObject)]
pub enum EventObject {
    /// The one name.
    #[serde(rename = "fine_tuning.job.event")]
    Event,
}

/// That it is a checkpoint of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::CheckpointObject)]
pub enum CheckpointObject {
    /// The one name.
    #[serde(rename = "fine_tuning.job.checkpoint")]
    Checkpoint,
}

/// That it is a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::PermissionObject)]
pub enum PermissionObject {
    /// The one name.
    #[serde(rename = "checkpoint.permission")]
    Permission,
}

/// That it is a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::ModelObject)]
pub enum ModelObject {
    /// The one name.
    #[serde(rename = "model")]
    Model,
}

/// That it is a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::ListObject)]
pub enum ListObject {
    /// The one name.
    #[serde(rename = "list")]
    List,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// Always `list`.
    pub object: ListObject,
    /// What is on the page.
    pub data: Vec<T>,
    /// Whether there is more: ask for it with `after` and the id of the last item.
    pub has_more: bool,
}

/// A page of a list that names its ends.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// Always `list`.
    pub object: ListObject,
    /// What is on the page.
    pub data: Vec<T>,
    /// Id of the first item; null where there is none.
    pub first_id: Option<String>,
    /// Id of the last item; null where there is none.
    pub last_id: Option<String>,
    /// Whether there is more: ask for it with `after` and the id of the last item.
    pub has_more: bool,
}

impl<T: Listed> List<T> {
    /// A page of what has been read.
    #[must_use]
    pub const fn new(data: Vec<T>, has_more: bool) -> Self {
        Self { object: ListObject::List, data, has_more }
    }

    /// The page after a cursor.
    ///
    /// # Errors
    /// The cursor is not there.
    pub fn after<const LENGTH: usize>(all: Vec<T>, after: Option<&str>, limit: Length<LENGTH>) -> Result<Self, Refusal> {
        let start = match after {
            None => 0,
            Some(after) => {
                let at = all.iter().position(|item| item.id() == after);
                at.ok_or_else(|| Refusal::bad("after", Refusal::not_found("the item to go on after", after).message))? + 1
            }
        };
        let has_more = all.len().saturating_sub(start) > limit.bounded();
        Ok(Self::new(all.into_iter().skip(start).take(limit.bounded()).collect(), has_more))
    }

    /// The same page with the names of its ends.
    #[must_use]
    pub fn with_ends(self) -> Page<T> {
        let Self { object, data, has_more } = self;
        let id = |item: Option<&T>| item.map(|item| item.id().to_owned());
        let (first_id, last_id) = (id(data.first()), id(data.last()));
        Page { object, data, first_id, last_id, has_more }
    }
}
