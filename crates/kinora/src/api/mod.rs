//! The wire: all routes on one screen. Only this module knows HTTP.

mod auth;
mod body;
mod error;
mod health;
mod media;
mod metrics;
mod models;
mod origin;
mod requests;
mod traced;
mod types;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use kinora_engine::Engine;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;
use uuid::Uuid;

pub use auth::{Caller, KeyRing};
pub use error::ApiError;
pub use media::MediaDelivery;
pub use metrics::{Here, metrics_router};
pub use origin::Origin;
pub use types::ErrorBody;

use crate::capability::Claim;
use crate::clock;
use crate::intake::{Intake, MEDIA_PATH};
use crate::models::ModelNames;
use crate::telemetry;

/// The bases under which the same operations answer; the first is canonical.
pub const BASES: [&str; 3] = ["/api/v1/ie/requestqueue/apikey", "/api/v1/apikey", "/api/v1/ie/requestqueue"];
const REQUEST_ID_HEADER: &str = "x-request-id";
/// Media addresses are renewed in steps, so that they stay the same for a while and caches can hold them.
const MEDIA_EXPIRY_STEP_S: i64 = 3600;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct AppState(Arc<App>);

/// How the API answers.
#[derive(Debug)]
pub struct App {
    pub intake: Intake,
    /// What this process's own workers make videos with, where it has any.
    pub engine: Option<Arc<dyn Engine>>,
    /// Which models requests may ask for.
    pub names: ModelNames,
    /// The address that answers carry; the caller's own Host header where `None`.
    pub public: Option<Origin>,
    /// Host and port that are listened on.
    pub listen: String,
    pub media_ttl_s: i64,
    pub media_delivery: MediaDelivery,
    pub started_at_s: i64,
    pub keys: KeyRing,
    pub stop: CancellationToken,
}

impl std::ops::Deref for AppState {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl App {
    fn media_expiry_s(&self) -> i64 {
        let earliest = clock::wall_ms() / 1000 + self.media_ttl_s;
        (earliest / MEDIA_EXPIRY_STEP_S + 1) * MEDIA_EXPIRY_STEP_S
    }

    fn media_url(&self, origin: &Origin, claim: &Claim, name: &str) -> String {
        let token = self.intake.signer.sign(claim, self.media_expiry_s());
        origin.join(&format!("{MEDIA_PATH}{token}/{name}"))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Kinora",
        description = "Image-to-video on your own machine, behind the request queue of `Kling-Image2Video-V2.1-Standard`. \
            Not affiliated with the makers of the hosted model. The same operations answer under `/api/v1/apikey` \
            and `/api/v1/ie/requestqueue` too.",
    ),
    security(("key" = [])),
)]
struct Document;

/// All routes, with the documents that describe them.
pub fn router(app: App) -> Router {
    let state = AppState(Arc::new(app));
    let (described, document) = described_routes().split_for_parts();
    let aliases =
        BASES[1..].iter().fold(Router::new(), |router, base| router.nest(base, Router::from(operations())));
    described
        .merge(aliases)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(|| async { ApiError::NoSuchPath })
        .method_not_allowed_fallback(|| async { ApiError::WrongMethod })
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
        .layer(middleware::from_fn(with_request_id))
        .with_state(state)
}

/// The OpenAPI document, as served.
pub fn document() -> utoipa::openapi::OpenApi {
    described_routes().split_for_parts().1
}

fn described_routes() -> OpenApiRouter<AppState> {
    let mut document = Document::openapi();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key")).build();
    document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(scheme));
    let mut described = OpenApiRouter::with_openapi(document)
        .nest(BASES[0], operations())
        .routes(routes!(uploads::put))
        .routes(routes!(media::read))
        .routes(routes!(health::live))
        .routes(routes!(health::ready));
    describe_common_errors(described.get_openapi_mut());
    described
}

fn operations() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(requests::submit, requests::list))
        .routes(routes!(requests::status, requests::cancel))
        .routes(routes!(requests::cancel_by_post))
        .routes(routes!(models::list))
        .routes(routes!(models::get))
        .routes(routes!(uploads::grant))
}

/// What any operation that takes a key may answer besides its own errors.
fn describe_common_errors(document: &mut utoipa::openapi::OpenApi) {
    use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
    let common = [
        ("401", "The key is missing, unknown or revoked"),
        ("403", "X-Organization-ID is another organisation's"),
        ("429", "Over a rate or queue limit; Retry-After says when to come back"),
        ("503", "The store is unavailable; Retry-After says when to come back"),
    ];
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten().filter(|operation| operation.security.is_none()) {
            for (status, description) in common {
                let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                let response =
                    ResponseBuilder::new().description(description).content("application/json", body);
                operation.responses.responses.insert(status.to_owned(), RefOr::T(response.build()));
            }
        }
    }
}

/// Gives every request an id (the caller's own, where it is a plain one) for the log and the answer.
async fn with_request_id(request: Request, next: Next) -> Response {
    use tracing::Instrument as _;
    let given =
        request.headers().get(REQUEST_ID_HEADER).and_then(|id| id.to_str().ok()).filter(|id| is_plain(id));
    let id = given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let method = request.method().clone();
    // The path only: a query may hold what callers would not want logged, and so may a capability.
    let path = loggable_path(request.uri().path());
    let span = tracing::info_span!("http", request.id = id);
    let header = HeaderValue::from_str(&id).expect("a plain id is a header value");
    let traced = traced::Traced::begin(&request);
    async move {
        let mut response = next.run(request).await;
        if let Some(traced) = traced {
            traced.end(&response);
        }
        tracing::debug!(%method, path, status = response.status().as_u16(), "http.answered");
        telemetry::answered(response.status().as_u16());
        response.headers_mut().insert(REQUEST_ID_HEADER, header);
        response
    }
    .instrument(span)
    .await
}

fn is_plain(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn loggable_path(path: &str) -> String {
    let secret = [MEDIA_PATH, uploads::UPLOAD_PATH].into_iter().find(|prefix| path.starts_with(prefix));
    secret.map_or_else(|| path.to_owned(), |prefix| format!("{prefix}…"))
}
