//! Serves a router, over TLS or not: bounded connections, bounded handshakes, heads and lives, and a graceful end.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// How much a server takes upon itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// How long one lives; as long as it likes when absent.
    pub life: Option<Duration>,
    /// Whether one carries more than one request.
    pub keep_alive: bool,
    /// Largest head of a request, in bytes; what is read at once may go over it.
    pub head_bytes: usize,
    /// Most header fields.
    pub headers: usize,
    /// How long the other end may take nothing of what is sent to it, or not say that it has got it.
    pub unread: Duration,
    /// How long what is under way at the end may take.
    pub grace: Duration,
}

impl Limits {
    /// Of servers that our own programs ask.
    pub const AMONG_US: Self = Self {
        connections: 1024,
        life: Some(Duration::from_mins(2)),
        keep_alive: false,
        head_bytes: 32 * 1024,
        headers: 64,
        unread: Duration::from_mins(1),
        grace: Duration::from_secs(8),
    };
}

/// The certificate with which the other end has proven itself; an extension of every request.
#[derive(Clone, Debug)]
pub struct Peer(pub Option<CertificateDer<'static>>);

/// Binds `address`; all addresses of IPv4 when there is no IPv6.
///
/// # Errors
/// The address is taken, or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Serves `router` until `shutdown`, over TLS when there is something to prove; then waits a while for what is under way.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(slot), Ok((stream, _))) => {
                let (acceptor, router, stopped) = (acceptor.clone(), router.clone(), stopped.clone());
                connections.spawn(async move {
                    let connection = connection(stream, acceptor, limits, router, stopped);
                    match limits.life {
                        None => connection.await,
                        Some(life) if tokio::time::timeout(life, connection).await.is_ok() => {}
                        Some(_) => tracing::debug!("a connection has come of age"),
                    }
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
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, all).await.is_err() {
        tracing::warn!("some requests were still under way at the end; who asked asks again");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    router: Router,
    stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(limits.unread));
    let Some(acceptor) = acceptor else { return exchange(stream, limits, router, stopped).await };
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = Peer(certificates.and_then(<[_]>::first).map(|certificate| certificate.clone().into_owned()));
    exchange(stream, limits, router.layer(Extension(peer)), stopped).await;
}

async fn exchange<S>(stream: S, limits: Limits, router: Router, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().keep_alive(limits.keep_alive).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http1().max_buf_size(limits.head_bytes).max_headers(limits.headers);
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
    use tokio::sync::{Notify, oneshot};

    use super::*;

    const LIMITS: Limits = Limits { keep_alive: true, ..Limits::AMONG_US };

    /// A server without TLS: its port, what stops it, and its end.
    async fn started(router: Router) -> (u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        started_with(LIMITS, router).await
    }

    async fn started_with(limits: Limits, router: Router) -> (u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or_default() };
        (port, stop, tokio::spawn(serve(listener, None, limits, router, shutdown)))
    }

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
        let (port, stop, server) = started(Router::new().route("/", get(slow))).await;
        let asked = say(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        heard_of.notified().await;
        stop.send(()).unwrap();
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
        let (port, stop, server) = started(Router::new().route("/", get(|| async { "fine" }))).await;
        let many = "X-One: a\r\n".repeat(LIMITS.headers + 1);
        let long = format!("X-Long: {}\r\n", "a".repeat(4 * LIMITS.head_bytes));
        for head in [many, long] {
            let stream = say(port, &format!("GET / HTTP/1.1\r\nHost: x\r\n{head}\r\n")).await.unwrap();
            let answer = heard(stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
        let stream = say(port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(heard(stream).await.ends_with("fine"));
        stop.send(()).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn who_stops_reading_does_not_hold_an_answer_for_ever() {
        /// Says when the answer is given up.
        struct Held(Option<oneshot::Sender<()>>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.0.take().map(|given_up| given_up.send(()));
            }
        }
        let (given_up, until_given_up) = oneshot::channel();
        let held = Arc::new(std::sync::Mutex::new(Some(Held(Some(given_up)))));
        let endless = move || {
            let held = held.lock().unwrap().take();
            let chunks = futures::stream::repeat_with(move || {
                let _ = &held;
                Ok::<_, std::io::Error>(vec![0_u8; 64 * 1024])
            });
            async move { axum::body::Body::from_stream(chunks) }
        };
        let limits = Limits { unread: Duration::from_millis(500), life: None, ..LIMITS };
        let (port, stop, server) = started_with(limits, Router::new().route("/", get(endless))).await;
        let silent = say(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        until_given_up.await.unwrap();
        drop(silent);
        stop.send(()).unwrap();
        server.await.unwrap();
    }
}
