//! Listens for agents over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::Error;
use super::tls::Certificates;
use crate::listener::{self, Limits};

/// One connection carries one request: agents report every half minute at most, and each time the Service picks a replica anew.
const LIMITS: Limits = Limits::AMONG_US;

/// TLS that takes its certificate from `certificates` at each handshake.
pub(super) fn tls(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Binds `address`.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    listener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Serves `router` until `shutdown`.
pub(super) async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, shutdown: impl Future<Output = ()>) {
    listener::serve(listener, Some(tls), LIMITS, router, shutdown).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use jiff::Timestamp;
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
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
        let tls = tls(Arc::new(certificates)).expect("a configuration");
        let server = tokio::spawn(serve(listener, tls, router, async { drop(stopped.await) }));
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
