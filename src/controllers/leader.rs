//! Which replica writes: the one that holds the Lease.

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;

/// Name of the Lease.
const LEASE: &str = "finetune-operator";
/// Seconds a lease lasts without renewal, and how long before its end it is renewed.
const SECONDS: (u64, u64) = (15, 5);

/// Why nobody can be elected.
#[derive(Debug, thiserror::Error)]
#[error("cannot take part in the election of a leader by Lease {namespace}/{LEASE}")]
pub struct Error {
    namespace: String,
    #[source]
    source: kube_lease_manager::LeaseManagerError,
}

/// Waits until this process leads; the returned future ends when it does so no longer.
///
/// # Errors
/// When the Lease cannot be read or made.
pub async fn lead(client: Client, namespace: &str, identity: &str) -> Result<impl Future<Output = ()> + Send + use<>, Error> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(SECONDS.0)
        .with_grace(SECONDS.1)
        .build()
        .await
        .map_err(|source| Error { namespace: namespace.to_owned(), source })?;
    let (mut leading, _task) = manager.watch().await;
    let _ = leading.wait_for(|leads| *leads).await;
    Ok(async move {
        let _ = leading.wait_for(|leads| !*leads).await;
    })
}
