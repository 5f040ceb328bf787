//! In which of the namespaces it is told of the operator may work. One that is gone has taken its Role along; it must not keep the others waiting.

use std::time::Duration;

use futures::{StreamExt, stream};
use kube::Client;

use super::namespaces::Namespaces;
use crate::{api::FineTune, cluster::may_list};

/// How often it is asked again.
const AGAIN: Duration = Duration::from_mins(1);

/// The namespaces among `told` to watch; the others are left out, and that is said.
pub async fn places(client: &Client, told: &Namespaces) -> Namespaces {
    let places = answered(client, told).await.unwrap_or_else(|| told.clone());
    for namespace in told.names().iter().filter(|name| !places.names().contains(name)) {
        tracing::error!(
            namespace,
            "the operator may not work in a namespace it is told to: it is gone, or its Role is; it is left out until that is there"
        );
    }
    places
}

/// Waits until other places are to be watched than those that are: it may work in one that was left out, or, before all that is watched has been
/// seen, not in one that was not. An API server that does not answer changes nothing.
pub async fn until_others(client: &Client, (told, watched): (&Namespaces, &Namespaces), is_ready: impl Fn() -> bool) {
    while told != watched || told.names().len() > 1 && !is_ready() {
        tokio::time::sleep(AGAIN).await;
        let Some(places) = answered(client, told).await else { continue };
        let is_more = places.names().iter().any(|name| !watched.names().contains(name));
        if is_more || !is_ready() && places != *watched {
            return tracing::info!(?places, "the operator may work in other namespaces by now: it starts over to do so");
        }
    }
    std::future::pending::<()>().await;
}

/// Where the operator may work, if the API server says so of each. Where it may work in none, or is told of one alone, its rights are what is
/// missing, and nothing is known of the places.
async fn answered(client: &Client, told: &Namespaces) -> Option<Namespaces> {
    if told.names().len() < 2 {
        return None;
    }
    let asked = stream::iter(told.names()).map(|name| may_list::<FineTune>(client, name));
    let answers: Vec<_> = asked.buffered(8).collect().await;
    let may = answers.into_iter().collect::<Option<Vec<bool>>>()?;
    let places: Vec<_> = told.names().iter().zip(may).filter(|(_, may)| *may).map(|(name, _)| name.clone()).collect();
    (!places.is_empty()).then(|| Namespaces::of(&places))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that says of each namespace, one time after the other, whether it is allowed; of what it says nothing it does not answer.
    struct Server(Arc<Mutex<Answers>>);

    type Answers = HashMap<&'static str, Vec<Option<bool>>>;

    impl Server {
        fn of(said: &[(&'static str, &[Option<bool>])]) -> Self {
            Self(Arc::new(Mutex::new(said.iter().map(|(name, said)| (*name, said.to_vec())).collect())))
        }

        fn client(&self) -> Client {
            let said = Arc::clone(&self.0);
            let answer = move |request: Request<Body>| {
                let said = Arc::clone(&said);
                async move {
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    let namespace = review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap().to_owned();
                    let mut said = said.lock().unwrap();
                    let answers = said.get_mut(namespace.as_str()).unwrap();
                    let allowed = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
                    let code = if allowed.is_some() { 201 } else { 503 };
                    let answer = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
                        "spec": {}, "status": {"allowed": allowed}});
                    Ok::<_, std::convert::Infallible>(
                        Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap(),
                    )
                }
            };
            Client::new(tower::service_fn(answer), "default")
        }
    }

    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);

    fn of(names: &[&str]) -> Namespaces {
        Namespaces::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    async fn chosen(told: &[&str], said: &[(&'static str, &[Option<bool>])]) -> Namespaces {
        places(&Server::of(said).client(), &of(told)).await
    }

    #[tokio::test]
    async fn what_is_refused_is_left_out_unless_that_is_everything_or_not_known() {
        assert_eq!(chosen(&["a", "b"], &[("a", &[YES]), ("b", &[NO])]).await, of(&["a"]));
        assert_eq!(chosen(&["a", "b"], &[("a", &[NO]), ("b", &[NO])]).await, of(&["a", "b"]));
        assert_eq!(chosen(&["a", "b"], &[("a", &[None]), ("b", &[NO])]).await, of(&["a", "b"]));
        assert_eq!(chosen(&["a"], &[]).await, of(&["a"]));
        assert_eq!(chosen(&[], &[]).await, Namespaces::default());
    }

    /// After how many minutes other places are to be watched.
    async fn minutes(said: &[(&'static str, &[Option<bool>])], watched: &[&str], ready: bool) -> Option<u64> {
        let (client, told, watched) = (Server::of(said).client(), of(&["a", "b"]), of(watched));
        let begin = tokio::time::Instant::now();
        let others = until_others(&client, (&told, &watched), || ready);
        let until = tokio::time::timeout(Duration::from_hours(1), others).await;
        until.ok().map(|()| begin.elapsed().as_secs() / 60)
    }

    #[tokio::test(start_paused = true)]
    async fn it_starts_over_when_it_may_work_where_it_could_not_and_not_because_nobody_answers() {
        let later: &[Option<bool>] = &[NO, None, NO, YES];
        assert_eq!(minutes(&[("a", &[YES]), ("b", later)], &["a"], true).await, Some(4));
        assert_eq!(minutes(&[("a", &[YES]), ("b", &[None])], &["a"], true).await, None);
        assert_eq!(minutes(&[("a", &[NO]), ("b", &[NO])], &["a"], true).await, None, "nothing to gain");
    }

    #[tokio::test(start_paused = true)]
    async fn it_starts_over_when_what_it_waits_for_has_gone_and_lives_with_that_once_it_is_ready() {
        assert_eq!(minutes(&[("a", &[NO, YES]), ("b", &[NO])], &["a", "b"], false).await, Some(2));
        assert_eq!(minutes(&[("a", &[YES]), ("b", &[NO])], &["a", "b"], true).await, None);
    }
}
