//! HTTPS beside HTTP: the same answers on a second loopback port, with a certificate of a new
//! authority. Its certificate is `ca.pem` in the state folder, for `AWS_CA_BUNDLE`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server;
use super::shared::Host;
use crate::services::REGION;

/// The sandbox's HTTPS server: its socket, its certificate, its address.
pub(super) struct Https {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// `https://localhost:PORT`
    pub(super) endpoint: String,
    /// The authority's certificate, PEM.
    pub(super) authority: String,
}

impl Https {
    /// Makes an authority and a server's certificate for `localhost` and for the hosts that the SDK
    /// calls whatever endpoint is set.
    pub(super) async fn bind() -> Result<Self, String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| format!("cannot bind: {e}"))?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), format!("portal.sso.{REGION}.amazonaws.com")];
        let (config, authority) = certificates(names).map_err(|error| format!("cannot make certificates: {error}"))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { listener, acceptor, endpoint: format!("https://localhost:{port}"), authority })
    }

    /// Accepts connections forever.
    pub(super) async fn serve(self, host: Arc<Host>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (host, acceptor) = (Arc::clone(&host), self.acceptor.clone());
            tokio::spawn(async move {
                // A delay is an optimisation that is missed, no error.
                let _ = stream.set_nodelay(true);
                // A client that does not trust the authority hangs up.
                if let Ok(stream) = acceptor.accept(stream).await {
                    server::connection(host, stream, None).await;
                }
            });
        }
    }
}

/// Writes the authority's certificate, and returns the file.
pub(super) fn write(authority: &str, state: &std::path::Path) -> Result<PathBuf, String> {
    let file = state.join("ca.pem");
    std::fs::write(&file, authority).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

/// A server's set-up for these names, and the certificate of the authority that vouches for it.
fn certificates(names: Vec<String>) -> Result<(ServerConfig, String), Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "relay sandbox");
    let key = KeyPair::generate()?;
    let certificate = authority.self_signed(&key)?;
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate()?;
    let server = CertificateParams::new(names)?.signed_by(&own, &issuer)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::try_from(own.serialize_der())?)?;
    Ok((config, certificate.pem()))
}
