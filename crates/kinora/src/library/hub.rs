//! The hub's HTTP interface, as far as files of a model repository need it.
//!
//! Source: the hub's public API documentation (repository information, tree listing with `Link` pages, `resolve`).

use std::time::Duration;

use reqwest::header::{HeaderMap, LINK, RANGE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::digest::Digest;
use super::{FileEntry, FileList, stays_inside};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two stretches of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
const PAGES_MAX: usize = 100;
/// A server that asks for more patience than this is not waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Why the hub did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("{url} cannot be reached: {source}")]
    Unreachable { url: String, source: reqwest::Error },
    #[error("{url} answered {status}{}", advice(*status))]
    Status { url: String, status: StatusCode, retry_after: Option<Duration> },
    #[error("{url} did not answer as a hub does: {reason}")]
    NotAHub { url: String, reason: String },
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; a token may be needed (HF_TOKEN), and its owner may first have to accept the model's terms"
        }
        StatusCode::NOT_FOUND => "; is the name of the mirror right, and does it have this model?",
        StatusCode::TOO_MANY_REQUESTS => "; it wants to be asked less often",
        _ => "",
    }
}

impl HubError {
    /// Whether asking again may help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !source.is_builder() && !source.is_redirect(),
            Self::Status { status, .. } => {
                status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(status)
            }
            Self::NotAHub { .. } => false,
        }
    }

    /// How long the server asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A hub or a mirror of it.
#[derive(Debug, Clone)]
pub struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    oid: String,
    size: u64,
    path: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// All files of one commit of a repository.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<FileEntry>,
}

impl Hub {
    /// `token` is sent to the endpoint only, never to where it redirects.
    pub fn new(endpoint: Url, token: Option<String>) -> Self {
        // Another library may have chosen before us, and then its choice serves as well.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("kinora/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
            .build()
            .expect("a client of fixed settings can be made");
        Self { client, endpoint, token }
    }

    /// The files of a repository. `revision` is a branch, tag or commit.
    pub(super) async fn list(&self, repository: &str, revision: &str) -> Result<Listing, HubError> {
        let about = self.url(&format!("api/models/{repository}/revision/{revision}"));
        let commit: Revision = self.json(about.clone()).await?.0;
        let is_plain = !commit.sha.is_empty() && commit.sha.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_plain {
            return Err(not_a_hub(&about, "the commit has no name"));
        }
        let mut next = Some(self.url(&format!("api/models/{repository}/tree/{}?recursive=true", commit.sha)));
        let mut files = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(page) = next.take() else { break };
            let (entries, headers): (Vec<TreeEntry>, HeaderMap) = self.json(page.clone()).await?;
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                if !stays_inside(&entry.path) {
                    return Err(not_a_hub(&page, &format!("a file is called {:?}", entry.path)));
                }
                files.push(file_entry(entry));
            }
            next = next_page(&headers, &page).filter(|url| url.origin() == self.endpoint.origin());
        }
        Ok(Listing { commit: commit.sha, files })
    }

    /// The bytes of a file from `from_bytes` on. An answer 200 begins at the file's beginning all the same.
    pub(super) async fn open(
        &self,
        list: &FileList,
        file: &FileEntry,
        from_bytes: u64,
    ) -> Result<Response, HubError> {
        let (repository, revision, path) = match &file.origin {
            Some(origin) => (&origin.repository, &origin.revision, &origin.path),
            None => (&list.repository, &list.revision, &file.path),
        };
        let url = self.url(&format!("{repository}/resolve/{revision}/{path}"));
        let mut request = self.client.get(url.clone());
        if from_bytes > 0 {
            request = request.header(RANGE, format!("bytes={from_bytes}-"));
        }
        self.send(request, &url).await
    }

    fn url(&self, path: &str) -> Url {
        let base = self.endpoint.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/{path}")).expect("a checked endpoint with a plain path is a URL")
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<(T, HeaderMap), HubError> {
        let answer = self.send(self.client.get(url.clone()), &url).await?;
        let headers = answer.headers().clone();
        let body = answer.bytes().await.map_err(|source| unreachable_at(&url, source))?;
        let value = serde_json::from_slice(&body).map_err(|error| not_a_hub(&url, &error.to_string()))?;
        Ok((value, headers))
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Response, HubError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request.send().await.map_err(|source| unreachable_at(url, source))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(HubError::Status {
            url: url.to_string(),
            status: answer.status(),
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
        })
    }
}

fn unreachable_at(url: &Url, source: reqwest::Error) -> HubError {
    // The address is said once, and a redirect's may hold a signature.
    HubError::Unreachable { url: url.to_string(), source: source.without_url() }
}

fn not_a_hub(url: &Url, reason: &str) -> HubError {
    HubError::NotAHub { url: url.to_string(), reason: reason.to_owned() }
}

fn file_entry(TreeEntry { path, oid, size, lfs, .. }: TreeEntry) -> FileEntry {
    let (size_bytes, digest) = match lfs {
        Some(lfs) => (lfs.size, Digest::Sha256(lfs.oid)),
        None => (size, Digest::GitBlob(oid)),
    };
    FileEntry { path, size_bytes, digest, origin: None }
}

/// The target of `Link: <…>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap, page: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let target = link.split_once('<')?.1.split_once('>')?.0;
    page.join(target).ok()
}
