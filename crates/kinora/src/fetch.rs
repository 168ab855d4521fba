//! Fetches a picture from a URL that a stranger chose.
//!
//! Always true: every connection goes to an address that was checked just before, so neither a name that changes its
//! address nor a redirect leads anywhere else; no proxy is used; a fetch ends within its deadline and keeps at most
//! its limit in memory; no error tells what lies behind an address that is not public, and nothing is logged.
//!
//! The steps of a client are taken one by one here (resolve, check, connect, TLS, one HTTP/1.1 exchange) because
//! general clients do them out of sight: they skip their resolver for addresses, follow redirects and obey proxies.
//! Ports are those of the web and the unprivileged ones, so that a fetch cannot speak to mail servers and the like.

mod address;
mod exchange;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use self::exchange::{Answer, Stream};

/// Bounds of a fetch.
#[derive(Debug, Clone)]
pub struct FetchPolicy {
    /// Networks that may be reached although they are not public.
    pub allow: Vec<IpNet>,
    pub bytes_max: usize,
    pub redirects_max: usize,
    /// For one address of a host.
    pub connect_timeout: Duration,
    /// For everything, redirects included.
    pub total_timeout: Duration,
}

impl Default for FetchPolicy {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            bytes_max: 10 * 1024 * 1024,
            redirects_max: 5,
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(20),
        }
    }
}

/// Longer URLs are refused.
const URL_CHARS_MAX: usize = 8192;
/// Addresses of a host that are tried, in the resolver's order.
const ADDRESSES_TRIED_MAX: usize = 3;
const WEB_PORTS: [u16; 2] = [80, 443];
const UNPRIVILEGED_PORT_MIN: u16 = 1024;

/// Why there is no picture. The messages are for the caller who gave the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("image URL is longer than {URL_CHARS_MAX} characters")]
    TooLong,
    #[error("image URL must begin with http:// or https://")]
    Scheme,
    #[error("image URL must not contain a user name or password")]
    Credentials,
    #[error("image URL must use port 80, 443 or one from {UNPRIVILEGED_PORT_MIN} on, not {0}")]
    Port(u16),
    #[error("image URL points to an address that is not public; use one that everybody can reach")]
    NotPublic,
    #[error("image URL names a host that cannot be found")]
    UnknownHost,
    #[error("image URL cannot be fetched: its host does not answer")]
    NoAnswer,
    #[error("image URL cannot be fetched: its host has no valid certificate for https")]
    Certificate,
    #[error("image URL cannot be fetched: its host broke off or does not speak HTTP")]
    Broken,
    #[error("image URL cannot be fetched: its host answers {0} instead of 200")]
    Status(u16),
    #[error("image URL redirects to something that is not a URL")]
    BadRedirect,
    #[error("image URL redirects more than {0} times")]
    TooManyRedirects(usize),
    #[error("image URL gives a compressed answer although none was asked for")]
    Compressed,
    #[error("image URL gives more than {bytes_max} bytes ({} MB); send a smaller picture", bytes_max / (1024 * 1024))]
    TooLarge { bytes_max: usize },
    #[error("image URL takes longer than {} s to fetch", .0.as_secs_f32())]
    TooSlow(Duration),
}

/// Finds the addresses of a name; replaced in tests.
trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send + 'a>>;
}

/// The operating system's resolver.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send + 'a>> {
        Box::pin(async move {
            let any_port = 0;
            let found = tokio::net::lookup_host((name, any_port)).await;
            found.map(|addresses| addresses.map(|address| address.ip()).collect()).unwrap_or_default()
        })
    }
}

/// Fetches pictures under a policy. Cheap to use many times at once.
pub struct Fetcher {
    policy: FetchPolicy,
    resolver: Box<dyn Resolve>,
    tls: TlsConnector,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Trusts the certificate authorities that the operating system trusts; where it has none, https fails.
    pub fn new(policy: FetchPolicy) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::with_parts(policy, Box::new(SystemResolver), roots)
    }

    fn with_parts(policy: FetchPolicy, resolver: Box<dyn Resolve>, roots: RootCertStore) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { policy, resolver, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// The bytes behind `url`, whatever they are.
    pub async fn fetch(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let total_timeout = self.policy.total_timeout;
        timeout(total_timeout, self.follow(url)).await.unwrap_or(Err(FetchError::TooSlow(total_timeout)))
    }

    async fn follow(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let mut url = url.clone();
        for _ in 0..=self.policy.redirects_max {
            check_url(&url)?;
            let stream = self.connect(&url).await?;
            match exchange::get(stream, &url, self.policy.bytes_max).await? {
                Answer::Body(bytes) => return Ok(bytes),
                Answer::Redirect(location) => {
                    url = url.join(&location).map_err(|_| FetchError::BadRedirect)?;
                }
            }
        }
        Err(FetchError::TooManyRedirects(self.policy.redirects_max))
    }

    /// A connection to a checked address of the URL's host, inside TLS for https.
    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, FetchError> {
        let port = url.port_or_known_default().ok_or(FetchError::Scheme)?;
        let mut connected = Err(FetchError::NoAnswer);
        for address in self.addresses(url).await?.into_iter().take(ADDRESSES_TRIED_MAX) {
            connected = self.connect_to(SocketAddr::new(address, port)).await;
            if connected.is_ok() {
                break;
            }
        }
        let tcp = connected?;
        if url.scheme() == "http" {
            return Ok(Box::new(tcp));
        }
        let name = match url.host().ok_or(FetchError::UnknownHost)? {
            Host::Domain(name) => {
                ServerName::try_from(name.to_owned()).map_err(|_| FetchError::UnknownHost)?
            }
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(address)),
        };
        let tls = self.tls.connect(name, tcp).await.map_err(|_| FetchError::Certificate)?;
        Ok(Box::new(tls))
    }

    /// All addresses of the URL's host, none of which is out of bounds.
    async fn addresses(&self, url: &Url) -> Result<Vec<IpAddr>, FetchError> {
        let addresses = match url.host().ok_or(FetchError::UnknownHost)? {
            Host::Domain(name) => self.resolver.resolve(name).await,
            Host::Ipv4(address) => vec![IpAddr::V4(address)],
            Host::Ipv6(address) => vec![IpAddr::V6(address)],
        };
        if addresses.is_empty() {
            return Err(FetchError::UnknownHost);
        }
        if addresses.iter().all(|address| self.may_reach(*address)) {
            Ok(addresses)
        } else {
            Err(FetchError::NotPublic)
        }
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        address::is_public(address) || self.policy.allow.iter().any(|net| net.contains(&address))
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<TcpStream, FetchError> {
        let stream = timeout(self.policy.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| FetchError::NoAnswer)?
            .map_err(|_| FetchError::NoAnswer)?;
        let is_where_we_meant = stream.peer_addr().is_ok_and(|peer| peer == address);
        if is_where_we_meant { Ok(stream) } else { Err(FetchError::NotPublic) }
    }
}

/// What can be said of a URL before its host is looked up.
fn check_url(url: &Url) -> Result<(), FetchError> {
    if url.as_str().len() > URL_CHARS_MAX {
        return Err(FetchError::TooLong);
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Credentials);
    }
    match url.port() {
        Some(port) if port < UNPRIVILEGED_PORT_MIN && !WEB_PORTS.contains(&port) => {
            Err(FetchError::Port(port))
        }
        _ => Ok(()),
    }
}
