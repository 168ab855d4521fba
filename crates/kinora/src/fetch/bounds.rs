//! What may be fetched, as far as it can be said without asking anybody: which URLs, which addresses, how much.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::address;

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

impl FetchPolicy {
    /// Whether a connection to this address is within bounds.
    pub(super) fn may_reach(&self, address: IpAddr) -> bool {
        address::is_public(address) || self.allow.iter().any(|net| net.contains(&address))
    }
}

/// What can be said of a URL before its host is looked up.
pub(super) fn check_url(url: &Url) -> Result<(), FetchError> {
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
