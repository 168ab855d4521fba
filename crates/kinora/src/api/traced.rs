//! What traces say of an answered HTTP request: method, route and status; never its path, query, headers or body.

use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use hyper::Method;
use uuid::Uuid;

use crate::traces::{self, Fact, Place, Side, Span};

const TRACEPARENT: &str = "traceparent";

/// An answer's extension: it accepts this job, whose trace begins with it.
#[derive(Debug, Clone, Copy)]
pub struct Accepts(pub Uuid);

/// A request that is being answered.
#[derive(Debug)]
pub struct Traced {
    method: Method,
    route: Option<String>,
    caller: Option<Place>,
    began: Instant,
}

impl Traced {
    /// Begins to measure, where anybody wants to know.
    pub fn begin(request: &Request) -> Option<Self> {
        let traceparent = || request.headers().get(TRACEPARENT)?.to_str().ok();
        traces::is_on().then(|| Self {
            method: request.method().clone(),
            route: route(request),
            caller: traceparent().and_then(Place::parse_traceparent),
            began: Instant::now(),
        })
    }

    /// Tells of the answer. A job's trace is its own, so there the caller's is only named.
    pub fn end(self, response: &Response) {
        let Self { method, route, caller, began } = self;
        let job = response.extensions().get::<Accepts>().map(|accepts| accepts.0);
        let place = match (job, caller) {
            (Some(job), _) => Place::of_job(job, 0),
            (None, Some(caller)) => caller.beside(),
            (None, None) => Place::anywhere(),
        };
        traces::record(|| {
            let name = route.as_ref().map_or_else(|| method.to_string(), |route| format!("{method} {route}"));
            let mut span = Span::ending_now(place, Side::Server, name, began.elapsed());
            span.parent = caller.filter(|caller| caller.trace == place.trace);
            let status = response.status();
            span.has_failed = status.is_server_error();
            span.facts = vec![
                ("http.request.method", Fact::Text(method.to_string().into())),
                ("http.response.status_code", Fact::Number(status.as_u16().into())),
            ];
            span.facts.extend(route.map(|route| ("http.route", Fact::Text(route.into()))));
            let callers = caller.filter(|caller| caller.trace != place.trace);
            span.facts.extend(callers.map(|caller| {
                ("kinora.caller.trace_id", Fact::Text(format!("{:032x}", caller.trace).into()))
            }));
            span
        });
    }
}

/// As the router has it, parameters by their names.
#[cfg(feature = "otlp")]
fn route(request: &Request) -> Option<String> {
    request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned())
}

#[cfg(not(feature = "otlp"))]
fn route(_: &Request) -> Option<String> {
    None
}
