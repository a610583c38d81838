//! The SDK's set-up, in one place: HTTP client, timeouts, retries, endpoint rules, user agent.

use std::path::Path;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{AppName, BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use relay_protocol::Region;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::checked::Checked;

/// The timeout of one attempt. A long poll lasts 20 s, so a longer attempt hangs on a dead peer.
/// The SDK has no such timeout of its own.
const ATTEMPT: Duration = Duration::from_secs(25);
pub(crate) const CONNECT: Duration = Duration::from_secs(3);

/// The set-up from which each adapter creates its client.
#[derive(Clone, Debug)]
pub struct Sdk {
    pub(crate) config: SdkConfig,
}

impl Sdk {
    /// Loads the set-up from the environment, as every AWS tool does. This serves the command
    /// lines, whose environment belongs to their operator. `region` takes precedence.
    ///
    /// Proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) and `AWS_CA_BUNDLE` are used.
    pub async fn from_environment(region: Option<&Region>) -> Self {
        let (trust, mut problem) = match bundle() {
            Ok(pem) => (pem.map(|pem| TrustStore::default().with_pem_certificate(pem)), None),
            Err(problem) => (None, Some(problem)),
        };
        problem = problem.or_else(broken_endpoint);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client(trust, ProxyConfig::from_env()))
            .timeout_config(timeouts())
            .retry_config(retries());
        if let Some(region) = region {
            loader = loader.region(aws_config::Region::new(region.to_string()));
        }
        if let Some(name) = app_name() {
            loader = loader.app_name(name);
        }
        let config = loader.load().await;
        let Some(credentials) = config.credentials_provider() else { return Self { config } };
        let checked = SharedCredentialsProvider::new(Checked { inner: credentials, problem });
        Self { config: config.into_builder().credentials_provider(checked).build() }
    }

    /// Loads the set-up from the environment, but the credentials from this profile alone.
    pub async fn of_profile(region: &Region, profile: &str) -> Self {
        let Self { config } = Self::from_environment(Some(region)).await;
        let region = aws_config::Region::new(region.to_string());
        let provider_config = aws_config::provider_config::ProviderConfig::empty().with_region(Some(region));
        let provider_config = match config.http_client() {
            Some(client) => provider_config.with_http_client(client),
            None => provider_config,
        };
        let credentials = aws_config::profile::ProfileFileCredentialsProvider::builder();
        let credentials = credentials.configure(&provider_config).profile_name(profile).build();
        let credentials = SharedCredentialsProvider::new(credentials);
        Self { config: config.into_builder().credentials_provider(credentials).build() }
    }

    /// Makes the set-up of a Lambda function: its credentials are in variables, and it reads no
    /// profile. Anyone who can set its variables can also change its code. The chain of
    /// [`Self::from_environment`] would make the launcher larger by a tenth.
    pub fn of_function(region: &Region) -> Self {
        let http = http_client(None, ProxyConfig::disabled());
        let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
        let endpoint = std::env::var("AWS_ENDPOINT_URL").ok();
        let Self { config } = Self::with(region, endpoint.as_deref(), credentials, http);
        Self { config: config.into_builder().service_config(ServiceEndpoints).build() }
    }

    /// Makes the set-up of the runner from pinned data and the container's credentials alone.
    /// RunTask overrides can set any variable, so this reads no region, proxy or endpoint from the
    /// environment (clause RUN-3). `authorities` are the PEM certificates that servers are verified
    /// against; without them, the image's own apply.
    pub fn pinned(region: &Region, endpoint: Option<&str>, authorities: Option<Vec<u8>>) -> Self {
        // Without certificates that can be used, no server is believed.
        let usable = authorities.map(|pem| if is_usable(&pem) { pem } else { Vec::new() });
        let trust = usable.map(|pem| TrustStore::empty().with_pem_certificate(pem));
        let http = http_client(trust, ProxyConfig::disabled());
        let provider_config =
            aws_config::provider_config::ProviderConfig::without_region().with_http_client(http.clone());
        let credentials = aws_config::ecs::EcsCredentialsProvider::builder().configure(&provider_config).build();
        Self::with(region, endpoint, SharedCredentialsProvider::new(credentials), http)
    }

    /// Returns this set-up with other credentials.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        let config = self
            .config
            .clone()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        Self { config }
    }

    fn with(
        region: &Region,
        endpoint: Option<&str>,
        credentials: SharedCredentialsProvider,
        http: SharedHttpClient,
    ) -> Self {
        let mut builder = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(aws_config::Region::new(region.to_string()))
            .credentials_provider(credentials)
            .http_client(http)
            .timeout_config(timeouts())
            .retry_config(retries())
            .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(
                aws_smithy_async::rt::sleep::TokioSleep::new(),
            ))
            .time_source(
                aws_smithy_async::time::SharedTimeSource::new(aws_smithy_async::time::SystemTimeSource::new()),
            );
        builder.set_app_name(app_name());
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Self { config: builder.build() }
    }

    /// Returns the region in force, if there is one.
    pub fn region(&self) -> Option<String> {
        self.config.region().map(ToString::to_string)
    }

    /// Returns the endpoint that replaces AWS's own, if one is set. The sandbox sets one, and a
    /// hostile environment could.
    pub fn endpoint(&self) -> Option<&str> {
        self.config.endpoint_url()
    }
}

/// Endpoints of single services: `AWS_ENDPOINT_URL_ECS` and the like.
#[derive(Debug)]
struct ServiceEndpoints;

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_ascii_uppercase().replace([' ', '-'], "_");
        std::env::var(format!("{}_{service}", key.env())).ok()
    }
}

/// Reads the certificates that `AWS_CA_BUNDLE` names, if it does.
fn bundle() -> Result<Option<Vec<u8>>, String> {
    let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) else { return Ok(None) };
    let name = format!("AWS_CA_BUNDLE={}", Path::new(&path).display());
    match std::fs::read(&path) {
        Ok(pem) if is_usable(&pem) => Ok(Some(pem)),
        Ok(_) => Err(format!("{name} has no certificate, or one that cannot be read")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Whether these are certificates in PEM. The SDK panics on others.
fn is_usable(pem: &[u8]) -> bool {
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_slice_iter(pem).all(|found| found.is_ok_and(|found| roots.add(found).is_ok()));
    all && !roots.is_empty()
}

/// Why the endpoint that the environment names cannot be one. The SDK would print whole requests.
fn broken_endpoint() -> Option<String> {
    let is_broken = |value: &str| value.contains(|c: char| c.is_whitespace() || c.is_control());
    let (name, _) = std::env::vars().find(|(name, value)| name.starts_with("AWS_ENDPOINT_URL") && is_broken(value))?;
    Some(format!("{name} contains a blank or a line break"))
}

/// Makes the HTTP client. Without a trust store of its own, the system's certificates apply.
fn http_client(trust: Option<TrustStore>, proxy: ProxyConfig) -> SharedHttpClient {
    let context = tls(trust);
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context.clone()).build()
    })
}

fn tls(trust: Option<TrustStore>) -> TlsContext {
    let context = TlsContext::builder().with_trust_store(trust.unwrap_or_default()).build();
    #[allow(clippy::expect_used, reason = "the message states the invariant")]
    context.expect("a trust store is only data until a connection is made")
}

/// A connector for other servers than AWS's, with the proxies and certificates of the environment.
#[cfg(feature = "fetch")]
pub(crate) fn connector_from_environment() -> Result<Connector, String> {
    let context = tls(bundle()?.map(|pem| TrustStore::default().with_pem_certificate(pem)));
    let builder = Connector::builder().proxy_config(ProxyConfig::from_env());
    Ok(builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build())
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(5))
}

fn app_name() -> Option<AppName> {
    AppName::new(concat!("relay-", env!("CARGO_PKG_VERSION"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sdk_would_panic_on_is_no_certificate() {
        let broken =
            ["", "x", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!"];
        assert!(!broken.iter().any(|pem| is_usable(pem.as_bytes())));
    }
}
