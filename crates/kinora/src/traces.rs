//! Traces: what became of a request and how long each step took, for a collector that speaks OpenTelemetry's protocol.
//!
//! The trace of a request has the request's own id as its number, so servers and workers meet in it without telling each
//! other, and whoever knows the id finds the trace. Spans are told when they have ended. Always true: no prompt, picture,
//! key, capability or caller's path is in one. Without the cargo feature `otlp`, or without a collector, nothing happens.
//!
//! Sources: the OTLP specification 1.x (HTTP, protobuf); the semantic conventions for HTTP spans; W3C Trace Context.

#[cfg(feature = "otlp")]
mod exporter;
#[cfg(not(feature = "otlp"))]
#[path = "traces/nowhere.rs"]
mod exporter;

use std::borrow::Cow;
use std::time::Duration;

use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::keys::random_bytes;

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint}: {reason}")]
pub struct TracesError {
    endpoint: Url,
    reason: anyhow::Error,
}

/// Where a span stands: in which trace, and under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub trace: u128,
    pub span: u64,
}

impl Place {
    /// A place in a trace of its own.
    pub fn anywhere() -> Self {
        Self { trace: u128::from_be_bytes(random_bytes()), span: random_span() }
    }

    /// A new place in the same trace.
    pub fn beside(self) -> Self {
        Self { span: random_span(), ..self }
    }

    /// Where a job's attempt stands, the same for everybody who knows both; attempt 0 is its acceptance.
    pub fn of_job(id: Uuid, attempt: i64) -> Self {
        let (_, low) = id.as_u64_pair();
        Self { trace: id.as_u128(), span: low.wrapping_add(attempt.cast_unsigned()) }
    }

    /// What a caller said in the header `traceparent`; `None` for anything else.
    pub fn parse_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let is_hex =
            |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !(is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16)) {
            return None;
        }
        let place =
            Self { trace: u128::from_str_radix(trace, 16).ok()?, span: u64::from_str_radix(span, 16).ok()? };
        (place.trace != 0 && place.span != 0).then_some(place)
    }
}

fn random_span() -> u64 {
    // Zero stands for none.
    u64::from_be_bytes(random_bytes()).max(1)
}

/// Whose side of the work a span tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Somebody is answered.
    Server,
    /// Something that waited is worked on.
    Consumer,
    /// A part of another span.
    Internal,
}

/// A fact about a span.
#[derive(Debug, Clone)]
pub enum Fact {
    Text(Cow<'static, str>),
    Number(i64),
}

/// Something that took its time and is over.
#[derive(Debug, Clone)]
pub struct Span {
    pub place: Place,
    pub parent: Option<Place>,
    pub side: Side,
    pub name: Cow<'static, str>,
    /// Since the Unix epoch.
    pub began: Duration,
    pub took: Duration,
    pub facts: Vec<(&'static str, Fact)>,
    pub has_failed: bool,
}

impl Span {
    /// A span that ends now.
    pub fn ending_now(place: Place, side: Side, name: impl Into<Cow<'static, str>>, took: Duration) -> Self {
        let now = Duration::from_millis(clock::wall_ms().unsigned_abs());
        Self {
            place,
            parent: None,
            side,
            name: name.into(),
            began: now.saturating_sub(took),
            took,
            facts: Vec::new(),
            has_failed: false,
        }
    }
}

/// Sends spans to the collector at `endpoint` from now on, from within a runtime. Once for the whole process.
pub fn start(endpoint: &Url) -> Result<(), TracesError> {
    exporter::start(endpoint).map_err(|reason| TracesError { endpoint: endpoint.clone(), reason })
}

/// Whether anybody wants to know.
pub fn is_on() -> bool {
    exporter::is_on()
}

/// Tells of a span; where nobody wants to know, it is not even made.
pub fn record(span: impl FnOnce() -> Span) {
    if is_on() {
        exporter::send(span());
    }
}

/// Sends what is left, for a few seconds at most.
pub async fn stop() {
    exporter::stop().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_is_read_strictly() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let place = Place { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span: 0xb7ad_6b71_6920_3331 };
        assert_eq!(Place::parse_traceparent(good), Some(place));
        for wrong in [
            "",
            "00",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &good[..50],
            &good.replace('-', ""),
        ] {
            assert_eq!(Place::parse_traceparent(wrong), None, "{wrong}");
        }
        assert_eq!(Place::parse_traceparent(&good.replace("b7ad6b7169203331", &"0".repeat(16))), None);
    }

    #[test]
    fn attempts_of_a_job_stand_in_its_own_trace_at_places_of_their_own() {
        let id = Uuid::now_v7();
        let [accepted, first, second] = [0, 1, 2].map(|attempt| Place::of_job(id, attempt));
        assert_eq!((accepted.trace, first.trace, second.trace), (id.as_u128(), id.as_u128(), id.as_u128()));
        assert!(accepted != first && first != second);
        assert_eq!(first, Place::of_job(id, 1));
    }
}
