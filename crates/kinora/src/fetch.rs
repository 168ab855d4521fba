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
mod bounds;
mod exchange;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use self::exchange::{Answer, Stream};

pub use self::bounds::{FetchError, FetchPolicy};

/// Addresses of a host that are tried, in the resolver's order.
const ADDRESSES_TRIED_MAX: usize = 3;

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
            bounds::check_url(&url)?;
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
        if addresses.iter().all(|address| self.policy.may_reach(*address)) {
            Ok(addresses)
        } else {
            Err(FetchError::NotPublic)
        }
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
