//! The way from the installation's Gateway to a served model. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::{ObservedDeployment, children, differs, observed::Route, resolution::Resolution};
use crate::{
    api::{HttpRoute, HttpRouteSpec, ParentReference, condition},
    plan::{Change, Child, Known, condition::Further},
    settings::Gateway,
};

/// The write that is due, where the cluster knows HTTPRoutes.
pub fn change(observed: &ObservedDeployment, resolution: &Resolution, gateway: &Gateway) -> Option<Change> {
    let Route::Known(known) = &observed.route else { return None };
    let known = known.as_ref().map(|known| &known.metadata);
    let wanted = route(resolution, gateway);
    differs(known, &wanted.metadata).then(|| Change::Apply { child: Child::Route(Box::new(wanted)), known: known.map(Known::of) })
}

/// What is said of it, and of what `is_gone` it leads to; what was said before while nothing is known yet.
pub fn condition(observed: &ObservedDeployment, (gateway, is_gone): (&Gateway, bool), now: Timestamp) -> Option<Condition> {
    let before = observed.status().conditions;
    let (holds, reason, message) = match &observed.route {
        Route::Unknown => return condition::find(&before, condition::ROUTED).cloned(),
        Route::Unavailable(cause) => {
            let remedy = "install the Gateway API, or take the gateway out of the operator's settings";
            (false, "GatewayApiUnavailable", format!("HTTPRoutes cannot be made: {cause}: {remedy}"))
        }
        Route::Known(_) if is_gone => (false, "NothingServed", "there is nothing to lead to: see the reason of Ready".to_owned()),
        Route::Known(None) => (false, "Pending", "the HTTPRoute is being made".to_owned()),
        Route::Known(Some(_)) => {
            let path = path(observed.namespace(), observed.name());
            (true, "Routed", format!("Gateway {}/{} leads {path}/ to the model", gateway.namespace, gateway.name))
        }
    };
    let further = Further { kind: condition::ROUTED, holds, reason: reason.into(), message };
    Some(further.condition(&before, observed.deployment.metadata.generation, now))
}

/// Every model has a path of its own, since all of them share one Gateway.
fn path(namespace: &str, name: &str) -> String {
    format!("/{namespace}/{name}")
}

fn route(resolution: &Resolution, gateway: &Gateway) -> HttpRoute {
    let rewrite =
        json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}});
    let path = path(&resolution.namespace, &resolution.name);
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "filters": [rewrite],
        "backendRefs": [{"name": resolution.name, "port": resolution.runtime.spec.port}],
    });
    let parent = ParentReference { namespace: Some(gateway.namespace.clone()), name: gateway.name.clone() };
    let spec = HttpRouteSpec { parent_refs: vec![parent], rules: vec![rule] };
    HttpRoute { metadata: children::metadata(&resolution.owner(), children::fingerprint(&spec)), spec }
}
