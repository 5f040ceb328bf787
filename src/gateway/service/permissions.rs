//! Which projects may use a checkpoint.

use kube::{ResourceExt, api::ObjectMeta};

use super::cluster::Selection;
use super::{Session, ids};
use crate::api::{Checkpoint, CheckpointPermission, CheckpointPermissionSpec, NameReference, names};
use crate::gateway::errors::Refusal;

/// Projects one request may name.
pub const MOST: usize = 100;

/// The permissions of a checkpoint, its run's included, newest first.
///
/// # Errors
/// The caller may not.
pub async fn list(session: &Session, checkpoint: &Checkpoint) -> Result<Vec<CheckpointPermission>, Refusal> {
    let mut all = session.cluster.list::<CheckpointPermission>(&Selection::default()).await?;
    all.retain(|permission| covers(&permission.spec, checkpoint));
    all.sort_by_key(|permission| std::cmp::Reverse((created(permission), permission.name_any())));
    Ok(all)
}

/// Whether a permission is about a checkpoint.
fn covers(permission: &CheckpointPermissionSpec, checkpoint: &Checkpoint) -> bool {
    let named = |reference: &Option<NameReference>, name: Option<&str>| {
        reference.as_ref().map(|reference| reference.name.as_str()) == name
    };
    let run = checkpoint.spec.fine_tune.as_ref().map(|run| run.name.as_str());
    match &permission.checkpoint {
        Some(_) => named(&permission.checkpoint, checkpoint.metadata.name.as_deref()),
        None => run.is_some() && named(&permission.fine_tune, run),
    }
}

/// Lets projects use a checkpoint. Returns one permission a project; one that was there already is returned as it is.
///
/// # Errors
/// A project cannot be one, or the caller may not.
pub async fn grant(
    session: &Session,
    checkpoint: &Checkpoint,
    projects: &[String],
) -> Result<Vec<CheckpointPermission>, Refusal> {
    if projects.is_empty() || projects.len() > MOST {
        return Err(Refusal::bad("project_ids", format!("name at least one project, and at most {MOST}")));
    }
    if let Some(bad) = projects.iter().find(|project| *project != "*" && !ids::is_label(project)) {
        let message = format!("{bad:?} cannot be a project: a project is a namespace, or * for all of them");
        return Err(Refusal::bad("project_ids", message));
    }
    let before = list(session, checkpoint).await?;
    let mut granted: Vec<CheckpointPermission> = Vec::new();
    for project in projects {
        if granted.iter().any(|permission| permission.spec.project == *project) {
            continue;
        }
        let known = before.iter().find(|permission| permission.spec.project == *project).cloned();
        granted.push(match known {
            Some(permission) => permission,
            None => grant_one(session, checkpoint, project).await?,
        });
    }
    Ok(granted)
}

async fn grant_one(session: &Session, checkpoint: &Checkpoint, project: &str) -> Result<CheckpointPermission, Refusal> {
    let name = ids::permission(&checkpoint.name_any(), project);
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(session.project.clone()),
        annotations: Some([(names::CREATED_BY.to_owned(), session.identity.username.clone())].into()),
        ..ObjectMeta::default()
    };
    let spec = CheckpointPermissionSpec {
        checkpoint: Some(NameReference::new(checkpoint.name_any())),
        fine_tune: None,
        project: project.to_owned(),
    };
    let wanted = CheckpointPermission { metadata, spec, status: None };
    if let Some(created) = session.cluster.create(&wanted).await? {
        return Ok(created);
    }
    let there = session.cluster.get::<CheckpointPermission>(&name).await?;
    there
        .filter(|there| there.spec == wanted.spec)
        .ok_or_else(|| Refusal::conflict(format!("the name {name} is taken: delete that permission")))
}

/// Takes a permission of a checkpoint away.
///
/// # Errors
/// There is no such permission of that checkpoint, or the caller may not.
pub async fn revoke(session: &Session, checkpoint: &Checkpoint, id: &str) -> Result<CheckpointPermission, Refusal> {
    for name in ids::permissions(id) {
        let found = session.cluster.get::<CheckpointPermission>(name).await?;
        if let Some(permission) = found.filter(|permission| covers(&permission.spec, checkpoint)) {
            session.cluster.delete(&permission, false).await?;
            return Ok(permission);
        }
    }
    Err(Refusal::not_found("permission", id))
}

/// When it was made.
#[must_use]
pub fn created(permission: &CheckpointPermission) -> Option<jiff::Timestamp> {
    permission.creation_timestamp().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RunReference;

    #[test]
    fn a_permission_is_about_its_checkpoint_or_all_of_its_run() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.metadata.name = Some("bot-step-3".into());
        checkpoint.spec.fine_tune = Some(RunReference { name: "bot".into(), uid: "u".into() });
        let of = |checkpoint: Option<&str>, run: Option<&str>| CheckpointPermissionSpec {
            checkpoint: checkpoint.map(NameReference::new),
            fine_tune: run.map(NameReference::new),
            project: "web".into(),
        };
        assert!(covers(&of(Some("bot-step-3"), None), &checkpoint) && covers(&of(None, Some("bot")), &checkpoint));
        assert!(!covers(&of(Some("bot-step-4"), None), &checkpoint) && !covers(&of(None, Some("other")), &checkpoint));
        checkpoint.spec.fine_tune = None;
        assert!(!covers(&of(None, Some("bot")), &checkpoint) && !covers(&of(None, None), &checkpoint));
    }
}
