//! Who is calling: the API key in the `Authorization` header, and the organisation it belongs to.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::{ApiError, AppState};
use crate::jobs::{JobStore, StoreError};
use crate::keys;

/// How long a key is believed without asking the store: a revoked key works no longer than this.
const TRUST: Duration = Duration::from_secs(1);
/// Keys remembered at the same time.
const REMEMBERED_MAX: usize = 4096;
const ORGANIZATION_HEADER: &str = "x-organization-id";

/// The owner of a valid API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub org_id: String,
    pub user_id: String,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let header = parts.headers.get(AUTHORIZATION).ok_or(ApiError::KeyMissing)?;
        let key = header.to_str().ok().and_then(bearer).ok_or(ApiError::KeyMissing)?;
        let sha256 = keys::hash(key);
        let caller = state.keys.caller(&state.intake.store, sha256).await?.ok_or(ApiError::KeyUnknown)?;
        state.keys.admit(&sha256)?;
        match parts.headers.get(ORGANIZATION_HEADER) {
            Some(org) if org.as_bytes() != caller.org_id.as_bytes() => Err(ApiError::WrongOrganisation),
            _ => Ok(caller),
        }
    }
}

/// The credentials of the `Bearer` scheme (RFC 6750 section 2.1), whose name is matched without regard to case.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// Looks keys up, and holds each to its rate.
#[derive(Debug)]
pub struct KeyRing {
    remembered: Mutex<HashMap<[u8; 32], (Caller, Instant)>>,
    rate: Option<(u32, DefaultKeyedRateLimiter<[u8; 32]>)>,
}

impl KeyRing {
    /// `per_second` requests for each key; `None` for no limit.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        let rate = per_second.map(|limit| (limit.get(), RateLimiter::keyed(Quota::per_second(limit))));
        Self { remembered: Mutex::default(), rate }
    }

    async fn caller(&self, store: &JobStore, sha256: [u8; 32]) -> Result<Option<Caller>, StoreError> {
        if let Some(caller) = self.recall(&sha256) {
            return Ok(Some(caller));
        }
        let Some(row) = store.key(&sha256).await? else { return Ok(None) };
        let caller = Caller { org_id: row.org_id, user_id: row.user_id };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(sha256, (caller.clone(), Instant::now()));
        Ok(Some(caller))
    }

    fn recall(&self, sha256: &[u8; 32]) -> Option<Caller> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(sha256).filter(|(_, since)| since.elapsed() < TRUST).map(|(caller, _)| caller.clone())
    }

    fn admit(&self, sha256: &[u8; 32]) -> Result<(), ApiError> {
        let Some((per_second, limiter)) = &self.rate else { return Ok(()) };
        limiter.check_key(sha256).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            ApiError::TooFast { per_second: *per_second, retry_after_s: wait.as_secs() as u32 + 1 }
        })
    }
}
