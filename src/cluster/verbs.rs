//! The verbs of the API, each made so that it touches nothing that is not ours, and can be said twice.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
};

use super::{Error, MANAGER, Subject};
use crate::{
    api::{is_controlled_by, names},
    plan::{ChildKind, ChildReference},
};

/// Creates `child`; one of that name that `is_ours` already is fine.
pub(super) async fn create<C: Subject>(api: &Api<C>, child: &C, is_ours: impl Fn(&C) -> bool) -> Result<(), Error> {
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match api.create(&params, child).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let found = api.get(&child.name_any()).await.map_err(|source| Error::write("get", child, source))?;
            if is_ours(&found) {
                return Ok(());
            }
            Err(Error::NameTaken { kind: C::kind(&()).into_owned(), name: child.name_any() })
        }
        Err(source) => Err(Error::write("create", child, source)),
    }
}

/// Brings the child of that uid up to date, or makes one where there is none. What is there and not ours is never touched: it is looked for
/// first, and nothing is forced when a child is made. One of ours that was not known because somebody took its mark away gets that back.
/// Returns the version it has then.
pub(super) async fn apply<C: Subject>(
    api: &Api<C>,
    child: &C,
    (uid, owner): (Option<&str>, &str),
) -> Result<Option<String>, Error> {
    let name = child.name_any();
    let mut uid = uid.map(ToOwned::to_owned);
    if uid.is_none()
        && let Some(found) = api.get_opt(&name).await.map_err(|source| Error::write("get", child, source))?
    {
        if !is_controlled_by(&found, owner) {
            let was_ours = found.labels().get(names::DEPLOYMENT) == Some(&name);
            let kind = C::kind(&()).into_owned();
            return Err(if was_ours { Error::Leaving { kind, name } } else { Error::NameTaken { kind, name } });
        }
        if found.labels().get(names::MANAGED_BY).is_some_and(|manager| manager == names::MANAGER) {
            return Ok(None);
        }
        uid = found.uid();
    }
    let mut body = child.clone();
    body.meta_mut().uid.clone_from(&uid);
    let params = PatchParams { force: uid.is_some(), ..PatchParams::apply(MANAGER) };
    let written = api.patch(&name, &params, &Patch::Apply(&body)).await;
    written.map(|written| written.resource_version()).map_err(|source| Error::write("apply", child, source))
}

/// Deletes exactly the object of that uid; one that is gone, or another by now, is fine.
pub(super) async fn delete<C: Subject>(api: &Api<C>, reference: &ChildReference) -> Result<(), Error> {
    let has_pods = matches!(reference.kind, ChildKind::Job | ChildKind::Served);
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground).filter(|_| has_pods),
        preconditions: Some(Preconditions { uid: Some(reference.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&reference.name, &params).await {
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
        other => ignore_gone(other.map(|_| ()), C::kind(&()).as_ref(), &reference.name),
    }
}

pub(super) fn ignore_gone(result: Result<(), kube::Error>, what: &str, name: &str) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(Error::Write { what: what.to_owned(), name: name.to_owned(), source: Box::new(source) }),
        Ok(()) => Ok(()),
    }
}
