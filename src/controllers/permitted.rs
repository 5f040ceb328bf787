//! In which of the namespaces it is told of the operator may work. One that is gone has taken its Role along; it must not keep the others waiting.

use std::time::Duration;

use futures::{StreamExt, stream};
use kube::Client;

use super::namespaces::Namespaces;
use crate::{api::FineTune, cluster::may_list};

/// How often it is asked whether a namespace that was left out is there by now.
const AGAIN: Duration = Duration::from_mins(1);

/// The namespaces among `told` to work in, and those to leave out. Where it may work in none of several, or is told of one alone, nothing is left out:
/// then it is its rights that are missing, and it waits for them.
pub async fn places(client: &Client, told: Namespaces) -> (Namespaces, Vec<String>) {
    if told.names().len() < 2 {
        return (told, Vec::new());
    }
    let asked = stream::iter(told.names()).map(|name| async move { (may_list::<FineTune>(client, name).await, name.clone()) });
    let (mut work, mut left_out) = (Vec::new(), Vec::new());
    for (may, name) in asked.buffered(8).collect::<Vec<_>>().await {
        if may { work.push(name) } else { left_out.push(name) }
    }
    if work.is_empty() {
        return (told, Vec::new());
    }
    for name in &left_out {
        tracing::error!(
            namespace = name,
            "the operator may not work in a namespace it is told to: it is gone, or its Role is; it is left out until that is there"
        );
    }
    (Namespaces::of(&work), left_out)
}

/// Waits until the operator may work in one of these, if there are any.
pub async fn until_more(client: &Client, left_out: &[String]) {
    if left_out.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(AGAIN).await;
        for name in left_out {
            if may_list::<FineTune>(client, name).await {
                return tracing::info!(namespace = name, "the operator may work here by now: it starts over to do so");
            }
        }
    }
}
