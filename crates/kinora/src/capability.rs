//! Capabilities: unguessable, signed, expiring names for stored files, readable by whoever holds the URL.
//!
//! A token is `base64url(claim ‖ expiry ‖ HMAC-SHA256 truncated to 128 bits)` (RFC 2104, RFC 4648 section 5). The
//! server's secret signs it, so nothing is stored for it and any changed byte makes it void.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

const TAG_BYTES: usize = 16;
const EXPIRY_BYTES: usize = 8;

/// What a capability opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The clip of a job's attempt.
    Video { job: Uuid, attempt: i64 },
    /// Its first frame, small.
    Thumbnail { job: Uuid, attempt: i64 },
    /// A stored input picture.
    Input { sha256: [u8; 32] },
    /// Reads what was uploaded under a grant.
    Upload { upload: Uuid },
    /// Writes under a grant.
    Grant { upload: Uuid },
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    #[error("the address is not one that this server signed")]
    Forged,
    #[error("the address has expired")]
    Expired,
}

/// Makes and checks tokens with the server's secret.
#[derive(Clone)]
pub struct Signer {
    secret: [u8; 32],
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// A token for `claim` that is void from `expires_at_s` (Unix seconds) on.
    pub fn sign(&self, claim: &Claim, expires_at_s: i64) -> String {
        let mut bytes = encode(claim);
        bytes.extend_from_slice(&expires_at_s.to_be_bytes());
        let tag = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What `token` opens at `now_s` (Unix seconds).
    pub fn verify(&self, token: &str, now_s: i64) -> Result<Claim, Void> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Void::Forged)?;
        let (signed, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(Void::Forged)?;
        self.mac(signed).verify_truncated_left(tag).map_err(|_| Void::Forged)?;
        let (claim, expiry) = signed.split_last_chunk::<EXPIRY_BYTES>().ok_or(Void::Forged)?;
        let claim = decode(claim).ok_or(Void::Forged)?;
        if now_s >= i64::from_be_bytes(*expiry) {
            return Err(Void::Expired);
        }
        Ok(claim)
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        mac.update(bytes);
        mac
    }
}

fn encode(claim: &Claim) -> Vec<u8> {
    let (kind, parts): (u8, [&[u8]; 2]) = match claim {
        Claim::Video { job, attempt } => (1, [job.as_bytes(), &attempt.to_be_bytes()]),
        Claim::Thumbnail { job, attempt } => (2, [job.as_bytes(), &attempt.to_be_bytes()]),
        Claim::Input { sha256 } => (3, [sha256, &[]]),
        Claim::Upload { upload } => (4, [upload.as_bytes(), &[]]),
        Claim::Grant { upload } => (5, [upload.as_bytes(), &[]]),
    };
    let mut bytes = vec![kind];
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn decode(bytes: &[u8]) -> Option<Claim> {
    let (kind, rest) = bytes.split_first()?;
    let of_attempt = || {
        let (job, attempt) = rest.split_first_chunk::<16>()?;
        Some((Uuid::from_bytes(*job), i64::from_be_bytes(attempt.try_into().ok()?)))
    };
    let of_upload = || Some(Uuid::from_bytes(rest.try_into().ok()?));
    match kind {
        1 => of_attempt().map(|(job, attempt)| Claim::Video { job, attempt }),
        2 => of_attempt().map(|(job, attempt)| Claim::Thumbnail { job, attempt }),
        3 => Some(Claim::Input { sha256: rest.try_into().ok()? }),
        4 => of_upload().map(|upload| Claim::Upload { upload }),
        5 => of_upload().map(|upload| Claim::Grant { upload }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> [Claim; 5] {
        let id = Uuid::from_u128(7);
        [
            Claim::Video { job: id, attempt: 2 },
            Claim::Thumbnail { job: id, attempt: 2 },
            Claim::Input { sha256: [9; 32] },
            Claim::Upload { upload: id },
            Claim::Grant { upload: id },
        ]
    }

    #[test]
    fn a_token_opens_what_it_was_signed_for_until_it_expires() {
        let signer = Signer::new([1; 32]);
        for claim in claims() {
            let token = signer.sign(&claim, 100);
            assert_eq!(signer.verify(&token, 99), Ok(claim));
            assert_eq!(signer.verify(&token, 100), Err(Void::Expired));
            assert_eq!(Signer::new([2; 32]).verify(&token, 99), Err(Void::Forged));
        }
    }

    #[test]
    fn a_token_with_any_character_changed_added_or_removed_opens_nothing() {
        let signer = Signer::new([1; 32]);
        for claim in claims() {
            let token = signer.sign(&claim, 100);
            for at in 0..token.len() {
                for other in "AZaz09-_=.%/".chars() {
                    let mut changed: Vec<char> = token.chars().collect();
                    if changed[at] == other {
                        continue;
                    }
                    changed[at] = other;
                    let changed: String = changed.into_iter().collect();
                    assert_eq!(signer.verify(&changed, 1), Err(Void::Forged), "{changed}");
                }
                assert_eq!(signer.verify(&token[..at], 1), Err(Void::Forged));
            }
            assert_eq!(signer.verify(&format!("{token}A"), 1), Err(Void::Forged));
        }
    }
}
