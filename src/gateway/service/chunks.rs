//! Lists of any length: read in chunks, the next on its way while one is looked at, and never more than those two in memory.

use kube::api::{ListParams, Resource};
use kube::core::{ListMeta, Request};
use kube::{Client, ResourceExt};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

/// Objects that are read at a time.
pub const CHUNK: u32 = 500;

/// A chunk as it comes, its objects not looked at yet.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// Hands every object of a list to `see`, without the bookkeeping of the API server, which may be larger than the object is.
///
/// # Errors
/// What the API server says, or it says what cannot be understood.
pub async fn each<K>(client: &Client, url: &str, params: ListParams, mut see: impl FnMut(K)) -> Result<(), kube::Error>
where
    K: Resource + DeserializeOwned,
{
    let mut params = params.limit(CHUNK);
    let mut coming = JoinSet::new();
    coming.spawn(ask(client.clone(), list(url, &params)?));
    while let Some(said) = coming.join_next().await {
        let (text, next);
        let items = match said.map_err(|error| kube::Error::Service(error.into()))? {
            Ok(said) => {
                text = said;
                let chunk: Chunk<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
                next = chunk.metadata.continue_;
                chunk.items.unwrap_or_default()
            }
            Err(error) => {
                next = Some(goes_on_at(&error).ok_or(error)?);
                Vec::new()
            }
        };
        params.continue_token = next.filter(|token| !token.is_empty());
        if params.continue_token.is_some() {
            coming.spawn(ask(client.clone(), list(url, &params)?));
        }
        for item in items {
            let mut object: K = serde_json::from_str(item.get()).map_err(kube::Error::SerdeError)?;
            object.managed_fields_mut().clear();
            see(object);
        }
    }
    Ok(())
}

/// Where a list goes on that took so long that its beginning is forgotten.
fn goes_on_at(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = error else { return None };
    let next = status.metadata.as_ref().filter(|_| status.code == 410)?.continue_.clone()?;
    (!next.is_empty()).then_some(next)
}

async fn ask(client: Client, request: http::Request<Vec<u8>>) -> Result<String, kube::Error> {
    client.request_text(request).await
}

fn list(url: &str, params: &ListParams) -> Result<http::Request<Vec<u8>>, kube::Error> {
    Request::new(url).list(params).map_err(kube::Error::BuildRequest)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tower_test::mock;

    use super::*;
    use crate::api::FineTune;

    const URL: &str = "/apis/finetune.dev/v1alpha1/namespaces/team/finetunes";

    fn chunk(names: &[&str], token: &str) -> Value {
        let managed =
            json!([{"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]);
        let one = |name: &&str| {
            json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "managedFields": managed},
                "spec": {"baseModel": {"name": "m"}, "dataset": {"name": "d"}}})
        };
        json!({"apiVersion": "v1", "kind": "List", "items": names.iter().map(one).collect::<Vec<_>>(), "metadata": {"continue": token}})
    }

    fn forgotten(token: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old",
            "metadata": {"continue": token}})
    }

    /// What is seen of a list, and how the outcome is, where each request for a token is answered so.
    async fn seen(answers: Vec<(&'static str, Value)>) -> (Vec<FineTune>, Result<(), kube::Error>) {
        let (service, mut server) = mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
        let answering = tokio::spawn(async move {
            for (token, answer) in answers {
                let (request, send) = server.next_request().await.unwrap();
                let asked = request.uri().query().unwrap_or_default().to_owned();
                assert!(asked.contains("limit=500"), "{asked}");
                let part = format!("&continue={token}");
                assert!(if token.is_empty() { !asked.contains("continue") } else { asked.ends_with(&part) }, "{asked}");
                let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
                let body = serde_json::to_vec(&answer).unwrap();
                send.send_response(http::Response::builder().status(code).body(body.into()).unwrap());
            }
        });
        let mut all = Vec::new();
        let outcome = each(&Client::new(service, "team"), URL, ListParams::default(), |run| all.push(run)).await;
        answering.await.unwrap();
        (all, outcome)
    }

    #[tokio::test]
    async fn every_object_of_every_chunk_is_seen_without_bookkeeping_though_the_server_forgets_the_beginning() {
        let answers = vec![("", chunk(&["a", "b"], "two")), ("two", forgotten("three")), ("three", chunk(&["c"], ""))];
        let (all, outcome) = seen(answers).await;
        outcome.unwrap();
        assert_eq!(all.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(all.iter().all(|run| run.managed_fields().is_empty()));
    }

    #[tokio::test]
    async fn a_refusal_in_the_middle_is_told() {
        let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old", "metadata": {}});
        let (all, outcome) = seen(vec![("", chunk(&["a"], "two")), ("two", gone)]).await;
        assert!(matches!(outcome, Err(kube::Error::Api(status)) if status.code == 410));
        assert_eq!(all.len(), 1, "what came before has been seen");
    }
}
