//! Listens for agents over TLS: bounded connections, bounded handshakes, and a graceful end.

use std::io::ErrorKind;
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
use tokio_rustls::TlsAcceptor;

use super::Error;
use super::tls::Certificates;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);
const MAX_CONNECTIONS: usize = 1024;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// A TLS acceptor that takes its certificate from `certificates` at each handshake.
pub(super) fn acceptor(certificates: Arc<Certificates>) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Binds `address`; all addresses of IPv4 when there is no IPv6.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|source| Error::Listen { address, source })
}

/// Serves `router` until `shutdown`; then waits a while for what is under way.
pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router, shutdown: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
                    connection(stream, acceptor, router, stopped).await;
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
    if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::warn!("some reports were still under way at the end; their agents send them again");
    }
}

/// One connection carries one request: agents report every half minute at most, and each time the Service picks a replica anew.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
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
    use jiff::Timestamp;
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::super::tls::Authority;
    use super::*;

    struct Agent {
        address: SocketAddr,
        ca_pem: String,
    }

    impl Agent {
        /// What the server answers to an agent that reaches it under `host`.
        async fn ask(&self, host: &str) -> std::io::Result<String> {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).expect("a certificate")).expect("a root");
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = TcpStream::connect(self.address).await?;
            let name = ServerName::try_from(host.to_owned()).expect("a name");
            let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        }
    }

    #[tokio::test]
    async fn agents_that_trust_the_authority_get_an_answer_until_the_end() {
        let authority = Authority::generate(Timestamp::now()).expect("an authority");
        let ca_pem = authority.ca_pem.clone();
        let hosts = vec!["reports.system.svc".to_owned(), "127.0.0.1".to_owned()];
        let certificates = Certificates::new(authority, hosts, Timestamp::now()).expect("certificates");
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let agent = Agent { address: listener.local_addr().expect("an address"), ca_pem };
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(|| async { "heard" }));
        let acceptor = acceptor(Arc::new(certificates)).expect("an acceptor");
        let server = tokio::spawn(serve(listener, acceptor, router, async { drop(stopped.await) }));
        for host in ["reports.system.svc", "127.0.0.1"] {
            let answer = agent.ask(host).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("heard"), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
        assert!(agent.ask("elsewhere.svc").await.is_err(), "a name that is not on the certificate");
        let other = Authority::generate(Timestamp::now()).expect("an authority").ca_pem;
        assert!(Agent { ca_pem: other, ..agent }.ask("reports.system.svc").await.is_err(), "another authority");
        stop.send(()).expect("still there");
        server.await.expect("a graceful end");
    }
}
