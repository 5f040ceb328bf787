//! What the operator may do, as the API server says when it is asked: nothing is written.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, Resource, api::PostParams};

/// Whether the operator may list a kind in a namespace, if the API server says.
pub async fn may_list<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Option<bool> {
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some("list".to_owned()),
        group: Some(K::group(&()).into_owned()),
        resource: Some(K::plural(&()).into_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.ok().and_then(|review: SelfSubjectAccessReview| review.status).map(|status| status.allowed)
}
