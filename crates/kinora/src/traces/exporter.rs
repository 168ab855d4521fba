//! Spans over HTTP to a collector, gathered and sent by a thread of the OpenTelemetry SDK. What the collector does not
//! take in time is dropped: nobody's video waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hyper::{Request, Response};
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceId};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor as _};
use tokio::runtime::Handle;
use url::Url;

use super::{Fact, Place, Side, Span};

/// For one batch, the collector's answer included.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// What is left at the end is sent for this long.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const SIGNAL_PATH: &str = "v1/traces";

static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

pub(super) fn start(endpoint: &Url) -> anyhow::Result<()> {
    // Another library may have chosen before us, and then its choice serves as well.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(SEND_TIMEOUT).build()?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client { client, runtime: Handle::current() })
        .with_endpoint(address(endpoint))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(SEND_TIMEOUT)
        .build()?;
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    let resource = Resource::builder_empty()
        .with_service_name(env!("CARGO_PKG_NAME"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    processor.set_resource(&resource);
    PROCESSOR.set(processor).map_err(|_| anyhow::Error::msg("traces are being sent already"))
}

/// The collector's address for traces: `/v1/traces` below the endpoint, unless that is what was given.
fn address(endpoint: &Url) -> String {
    let endpoint = endpoint.as_str().trim_end_matches('/');
    if endpoint.ends_with(SIGNAL_PATH) { endpoint.to_owned() } else { format!("{endpoint}/{SIGNAL_PATH}") }
}

pub(super) fn is_on() -> bool {
    PROCESSOR.get().is_some()
}

pub(super) fn send(span: Span) {
    if let Some(processor) = PROCESSOR.get() {
        processor.on_end(in_their_words(span));
    }
}

pub(super) async fn stop() {
    let flushed = tokio::task::spawn_blocking(|| {
        PROCESSOR.get().map_or(Ok(()), |processor| processor.shutdown_with_timeout(STOP_TIMEOUT))
    });
    match flushed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "traces.not_all_sent"),
        Err(error) => tracing::warn!(%error, "traces.not_all_sent"),
    }
}

fn in_their_words(span: Span) -> SpanData {
    let Span { place, parent, side, name, began, took, facts, has_failed } = span;
    SpanData {
        span_context: context(place),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span)),
        parent_span_is_remote: side != Side::Internal,
        span_kind: match side {
            Side::Server => SpanKind::Server,
            Side::Consumer => SpanKind::Consumer,
            Side::Internal => SpanKind::Internal,
        },
        name,
        start_time: UNIX_EPOCH + began,
        end_time: UNIX_EPOCH + began + took,
        attributes: facts.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: if has_failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME")).build(),
    }
}

fn context(place: Place) -> SpanContext {
    let (trace, span) = (TraceId::from(place.trace), SpanId::from(place.span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

fn attribute((name, fact): (&'static str, Fact)) -> KeyValue {
    match fact {
        Fact::Text(text) => KeyValue::new(name, text.into_owned()),
        Fact::Number(number) => KeyValue::new(name, number),
    }
}

/// Sends from the program's own runtime, since the SDK's thread has none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'a, 'sending>(&'a self, request: Request<Bytes>) -> Sending<'sending>
    where
        'a: 'sending,
        Self: 'sending,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move { sent(&client, request).await });
        Box::pin(async move { sent.await? })
    }
}

async fn sent(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let answer = client.execute(request.try_into()?).await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        headers.clone_from(answer.headers());
    }
    Ok(response.body(answer.bytes().await?)?)
}
