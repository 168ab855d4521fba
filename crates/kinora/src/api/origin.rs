//! The address by which a caller knows this server, for the absolute URLs it is answered.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;

use super::AppState;

/// Scheme, host and port, and a path prefix where the public URL has one; no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// `public` must be an http(s) URL.
    pub fn new(public: &str) -> Self {
        Self(public.trim_end_matches('/').to_owned())
    }

    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        let after_scheme = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        after_scheme.split('/').next().unwrap_or_default()
    }
}

impl FromRequestParts<AppState> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        if let Some(public) = &state.public {
            return Ok(public.clone());
        }
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority =
            host.and_then(|host| host.parse::<Authority>().ok()).filter(|a| !a.as_str().contains('@'));
        Ok(Self(format!("http://{}", authority.as_ref().map_or(state.listen.as_str(), Authority::as_str))))
    }
}
