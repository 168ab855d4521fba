//! API keys: 256 random bits, kept only as a SHA-256.
//!
//! A slow password hash would add nothing: the key cannot be guessed, and every request pays for the check.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock;
use crate::jobs::{JobStore, KeyRow, NewKey, StoreError};

const PREFIX: &str = "kin_";
const HINT_CHARS: usize = 10;

/// A secret that never prints itself by accident.
pub struct ApiKey(String);

impl ApiKey {
    fn random() -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>())))
    }

    /// The key itself, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The form in which a key is kept and looked up.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Makes a key for an organisation and stores its hash.
pub async fn create(store: &JobStore, org_id: &str, user_id: &str) -> Result<ApiKey, StoreError> {
    let key = ApiKey::random();
    let row = KeyRow {
        id: Uuid::now_v7().to_string(),
        org_id: org_id.to_owned(),
        user_id: user_id.to_owned(),
        hint: key.0.chars().take(HINT_CHARS).collect(),
        created_at_ms: clock::wall_ms(),
        revoked_at_ms: None,
    };
    store.add_key(NewKey { row, sha256: hash(&key.0) }).await?;
    Ok(key)
}

/// Bytes from the operating system's generator.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
