//! Listens for callers: bounded connections, bounded heads, and a graceful end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::limits;

const SHUTDOWN_GRACE: Duration = Duration::from_secs(45);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Binds a port of all addresses; of IPv4 alone when there is no IPv6.
///
/// # Errors
/// The port is taken, or not ours.
pub async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
        bound => bound,
    }
}

/// Serves `router` until `stopped` says so; then lets what is under way end.
pub async fn serve(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = asked_to_stop(&mut stopped) => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(slot), Ok((stream, _))) => {
                let (router, stopped) = (router.clone(), stopped.clone());
                connections.spawn(async move {
                    connection(stream, router, stopped).await;
                    drop(slot);
                });
            }
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::warn!("some requests were still under way at the end");
    }
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEAD_TIMEOUT);
    builder.http1().max_buf_size(limits::HEAD_BYTES).max_headers(limits::HEADERS);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        () = asked_to_stop(&mut stopped) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn asked_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, watch};

    use super::*;

    async fn say(port: u16, head: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(head.as_bytes()).await?;
        Ok(stream)
    }

    async fn heard(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn what_is_under_way_ends_and_nothing_new_begins() {
        let signals = Arc::new((Notify::new(), Notify::new()));
        let (heard_of, go_on) = &*signals;
        let shared = Arc::clone(&signals);
        let slow = move || {
            let shared = Arc::clone(&shared);
            async move {
                shared.0.notify_one();
                shared.1.notified().await;
                "done"
            }
        };
        let listener = bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(slow)), stopped));
        let asked = say(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        heard_of.notified().await;
        stop.send(true).unwrap();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go_on.notify_one();
        let answer = heard(asked).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn heads_are_bounded() {
        let listener = bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(|| async { "fine" })), stopped));
        let many = "X-One: a\r\n".repeat(limits::HEADERS + 1);
        let long = format!("X-Long: {}\r\n", "a".repeat(4 * limits::HEAD_BYTES));
        for head in [many, long] {
            let stream = say(port, &format!("GET / HTTP/1.1\r\nHost: x\r\n{head}\r\n")).await.unwrap();
            let answer = heard(stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
        let stream = say(port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(heard(stream).await.ends_with("fine"));
        stop.send(true).unwrap();
        server.await.unwrap();
    }
}
