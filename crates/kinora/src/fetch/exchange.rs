//! One HTTP/1.1 request and its answer over a connection that is already where it should be.

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;
use url::{Position, Url};

use super::FetchError;

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What the host says to a request.
pub(super) enum Answer {
    Body(Vec<u8>),
    /// A URL, perhaps relative.
    Redirect(String),
}

/// Room for an answer's status and headers.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Asks for `url` over `stream` and takes at most `bytes_max` of the body.
pub(super) async fn get(stream: Box<dyn Stream>, url: &Url, bytes_max: usize) -> Result<Answer, FetchError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER_BYTES_MAX);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| FetchError::Broken)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request(url)?).await.map_err(|_| FetchError::Broken)?;
    match response.status() {
        StatusCode::OK => read_body(response, bytes_max).await.map(Answer::Body),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            location.map(|location| Answer::Redirect(location.to_owned())).ok_or(FetchError::BadRedirect)
        }
        status => Err(FetchError::Status(status.as_u16())),
    }
}

fn request(url: &Url) -> Result<Request<Empty<Bytes>>, FetchError> {
    Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(USER_AGENT, concat!("Kinora/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "image/jpeg, image/png")
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| FetchError::UnknownHost)
}

async fn read_body(response: Response<Incoming>, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != HeaderValue::from_static("identity")) {
        return Err(FetchError::Compressed);
    }
    let mut body = response.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(FetchError::TooLarge { bytes_max });
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| FetchError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(FetchError::TooLarge { bytes_max });
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}
