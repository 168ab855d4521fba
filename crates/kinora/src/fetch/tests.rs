use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::bounds::check_url;
use super::{FetchError, FetchPolicy, Fetcher, Resolve};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Short deadlines, and the server's own address allowed.
fn policy() -> FetchPolicy {
    FetchPolicy {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        bytes_max: 10_000,
        connect_timeout: Duration::from_millis(500),
        total_timeout: Duration::from_secs(2),
        ..FetchPolicy::default()
    }
}

/// Gives the answers in turn, and counts the questions.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<VecDeque<Vec<IpAddr>>>>);

impl Answers {
    fn of(answers: &[&[IpAddr]]) -> Self {
        Self(Arc::new(Mutex::new(answers.iter().map(|addresses| addresses.to_vec()).collect())))
    }

    fn left_count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Resolve for Answers {
    fn resolve<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send + 'a>> {
        Box::pin(async { self.0.lock().unwrap().pop_front().unwrap_or_default() })
    }
}

fn fetcher_asking(policy: FetchPolicy, answers: Answers) -> Fetcher {
    Fetcher::with_parts(policy, Box::new(answers), RootCertStore::empty())
}

fn fetcher() -> Fetcher {
    fetcher_asking(policy(), Answers::default())
}

async fn fetch(url: &str) -> Result<Vec<u8>, FetchError> {
    fetcher().fetch(&url.parse().unwrap()).await
}

/// What the server does with a connection after it has read the request.
#[derive(Clone)]
enum Script {
    Say(Vec<u8>),
    /// Says this, then this again and again.
    SayForEver(Vec<u8>, Vec<u8>),
    /// Says this, then one byte of a body now and then.
    Drip(Vec<u8>),
    Silent,
}

struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A server on loopback; what it says depends on its own address and the request's path.
async fn serve(script: impl Fn(SocketAddr, &str) -> Script + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let script = Arc::new(script);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (script, seen) = (script.clone(), seen.clone());
            connections.spawn(async move { converse(stream, |path| script(address, path), &seen).await });
        }
    });
    Server { address, requests, _task: AbortOnDropHandle::new(task) }
}

async fn converse(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    script: impl Fn(&str) -> Script,
    seen: &Mutex<Vec<String>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(request);
    // The client may leave in the middle; that is its right.
    let _ = match script(&path) {
        Script::Say(bytes) => stream.write_all(&bytes).await,
        Script::SayForEver(first, again) => {
            let mut said = stream.write_all(&first).await;
            while said.is_ok() {
                said = stream.write_all(&again).await;
            }
            said
        }
        Script::Drip(first) => {
            let mut said = stream.write_all(&first).await;
            while said.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                said = stream.write_all(b"x").await;
            }
            said
        }
        Script::Silent => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
    };
    let _ = stream.shutdown().await;
}

fn ok(body: &[u8]) -> Script {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    Script::Say([head.as_bytes(), body].concat())
}

fn say(text: &str) -> Script {
    Script::Say(text.as_bytes().to_vec())
}

fn redirect(status: u16, to: &str) -> Script {
    say(&format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
}

#[test]
fn urls_are_checked_before_anything_is_looked_up() {
    let table = [
        ("http://example.com/a.png", Ok(())),
        ("https://example.com:443/a.png?x=1", Ok(())),
        ("https://example.com:8443/a.png", Ok(())),
        ("http://example.com:1024/", Ok(())),
        ("http://example.com:443/", Ok(())),
        ("ftp://example.com/a.png", Err(FetchError::Scheme)),
        ("file:///etc/passwd", Err(FetchError::Scheme)),
        ("gopher://example.com/", Err(FetchError::Scheme)),
        ("data:image/png;base64,AAAA", Err(FetchError::Scheme)),
        ("javascript:alert(1)", Err(FetchError::Scheme)),
        ("http://me@example.com/", Err(FetchError::Credentials)),
        ("http://:secret@example.com/", Err(FetchError::Credentials)),
        ("http://example.com:22/", Err(FetchError::Port(22))),
        ("http://example.com:25/", Err(FetchError::Port(25))),
        ("http://example.com:0/", Err(FetchError::Port(0))),
        ("https://example.com:1023/", Err(FetchError::Port(1023))),
    ];
    for (url, want) in table {
        assert_eq!(check_url(&url.parse().unwrap()), want, "{url}");
    }
    let long = format!("http://example.com/{}", "a".repeat(8192));
    assert_eq!(check_url(&long.parse().unwrap()), Err(FetchError::TooLong));
}

#[tokio::test]
async fn addresses_in_disguise_are_not_public() {
    let fetcher = fetcher_asking(FetchPolicy::default(), Answers::default());
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://0/",
        "http://127.0.0.1./",
        "http://%31%32%37.0.0.1/",
        "http://１２７.0.0.1/",
        "http://127。0。0。1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.1.2.3:8080/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "https:\\\\127.0.0.1\\a.png",
        "http:127.0.0.1",
    ] {
        let url: Url = url.parse().unwrap();
        assert_eq!(fetcher.fetch(&url).await, Err(FetchError::NotPublic), "{url}");
    }
}

#[tokio::test]
async fn a_name_with_one_address_out_of_bounds_is_refused() {
    let public: IpAddr = "93.184.215.14".parse().unwrap();
    let (private, mapped): (IpAddr, IpAddr) =
        ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap());
    for addresses in [&[private][..], &[public, private], &[public, mapped], &[LOOPBACK, public, private]] {
        let fetcher = fetcher_asking(policy(), Answers::of(&[addresses]));
        let error = fetcher.fetch(&"http://mixed.example/".parse().unwrap()).await;
        assert_eq!(error, Err(FetchError::NotPublic), "{addresses:?}");
    }
    let fetcher = fetcher_asking(policy(), Answers::of(&[]));
    let error = fetcher.fetch(&"http://nowhere.example/".parse().unwrap()).await;
    assert_eq!(error, Err(FetchError::UnknownHost));
}

#[tokio::test]
async fn the_systems_resolver_knows_localhost_and_it_is_refused() {
    let fetcher =
        Fetcher::with_parts(FetchPolicy::default(), Box::new(super::SystemResolver), RootCertStore::empty());
    for url in ["http://localhost/", "http://LOCALHOST:8080/"] {
        assert_eq!(fetcher.fetch(&url.parse().unwrap()).await, Err(FetchError::NotPublic), "{url}");
    }
}

#[tokio::test]
async fn a_body_arrives_whole_and_the_request_is_plain() {
    let server = serve(|_, _| ok(b"picture")).await;
    assert_eq!(fetch(&server.url("/a%20b.png?sig=1&x=%2F#part")).await, Ok(b"picture".to_vec()));
    let request = server.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(request.starts_with("get /a%20b.png?sig=1&x=%2f http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", server.address)), "{request}");
    assert!(request.contains("\r\naccept-encoding: identity\r\n"), "{request}");
    assert!(!request.contains("cookie") && !request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn bodies_without_a_length_and_in_chunks_arrive_whole() {
    let server = serve(|_, path| match path {
        "/until-close" => say("HTTP/1.0 200 OK\r\n\r\npicture"),
        _ => say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npict\r\n3\r\nure\r\n0\r\n\r\n"),
    })
    .await;
    for path in ["/until-close", "/chunked"] {
        assert_eq!(fetch(&server.url(path)).await, Ok(b"picture".to_vec()), "{path}");
    }
}

#[tokio::test]
async fn redirects_are_followed_within_bounds() {
    let server = serve(|address, path| match path {
        "/1" => redirect(301, &format!("http://{address}/2")),
        "/2" => redirect(302, "../3?x=1"),
        "/3?x=1" => redirect(303, &format!("//{address}/4")),
        "/4" => redirect(307, "5"),
        "/5" => redirect(308, "/picture"),
        "/0" => redirect(302, "/1"),
        _ => ok(b"picture"),
    })
    .await;
    assert_eq!(fetch(&server.url("/1")).await, Ok(b"picture".to_vec()));
    assert_eq!(fetch(&server.url("/0")).await, Err(FetchError::TooManyRedirects(5)));
}

#[tokio::test]
async fn every_redirect_is_checked_like_the_first_url() {
    let server = serve(|address, path| match path {
        "/loop" => redirect(308, "/loop"),
        "/nowhere" => say("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
        "/broken" => redirect(302, "http://[::1"),
        "/file" => redirect(302, "file:///etc/passwd"),
        "/login" => redirect(302, "http://me:pw@127.0.0.1:9/"),
        "/ssh" => redirect(302, "http://127.0.0.1:22/"),
        "/neighbour" => redirect(302, &format!("http://127.0.0.2:{}/picture", address.port())),
        "/metadata" => redirect(302, "http://169.254.169.254/latest/meta-data/"),
        "/mapped" => redirect(302, &format!("http://[::ffff:127.0.0.1]:{}/", address.port())),
        _ => redirect(302, "http://2130706434/"),
    })
    .await;
    let table = [
        ("/loop", FetchError::TooManyRedirects(5)),
        ("/nowhere", FetchError::BadRedirect),
        ("/broken", FetchError::BadRedirect),
        ("/file", FetchError::Scheme),
        ("/login", FetchError::Credentials),
        ("/ssh", FetchError::Port(22)),
        ("/neighbour", FetchError::NotPublic),
        ("/metadata", FetchError::NotPublic),
        ("/mapped", FetchError::NotPublic),
        ("/decimal", FetchError::NotPublic),
    ];
    for (path, want) in table {
        assert_eq!(fetch(&server.url(path)).await, Err(want), "{path}");
    }
    let loops_count = server.requests.lock().unwrap().iter().filter(|seen| seen.contains(" /loop ")).count();
    assert_eq!(loops_count, 6, "the first request and five redirects");
}

#[tokio::test]
async fn a_name_that_changes_its_address_leads_nowhere_else() {
    let server = serve(|address, path| match path {
        "/moves" => redirect(302, &format!("http://rebound.example:{}/", address.port())),
        _ => ok(b"picture"),
    })
    .await;
    let inside: IpAddr = "10.0.0.1".parse().unwrap();
    let url = |path: &str| format!("http://rebound.example:{}{path}", server.address.port()).parse().unwrap();

    // Asked once, so a second, bad answer can do no harm within a request.
    let answers = Answers::of(&[&[LOOPBACK], &[inside]]);
    let fetcher = fetcher_asking(policy(), answers.clone());
    assert_eq!(fetcher.fetch(&url("/")).await, Ok(b"picture".to_vec()));
    assert_eq!(answers.left_count(), 1);

    // A redirect asks again, and the new answer is checked.
    let answers = Answers::of(&[&[LOOPBACK], &[inside]]);
    let fetcher = fetcher_asking(policy(), answers.clone());
    assert_eq!(fetcher.fetch(&url("/moves")).await, Err(FetchError::NotPublic));
    assert_eq!(answers.left_count(), 0);
}

#[tokio::test]
async fn a_host_is_tried_at_its_next_address() {
    let server = serve(|_, _| ok(b"picture")).await;
    let closed: IpAddr = "127.0.0.2".parse().unwrap();
    let policy = FetchPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..policy() };
    let fetcher = fetcher_asking(policy, Answers::of(&[&[closed, LOOPBACK]]));
    let url = format!("http://two.example:{}/", server.address.port());
    assert_eq!(fetcher.fetch(&url.parse().unwrap()).await, Ok(b"picture".to_vec()));
}

#[tokio::test]
async fn answers_other_than_a_body_are_named() {
    let server = serve(|_, path| match path {
        "/empty" => Script::Say(Vec::new()),
        "/noise" => say("SSH-2.0-OpenSSH_9.6\r\n"),
        "/gzip" => say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
        "/short" => say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npicture"),
        "/bad-chunk" => say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "/long-headers" => Script::SayForEver(
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".to_vec(),
        ),
        path => say(&format!("HTTP/1.1 {} No\r\nContent-Length: 0\r\n\r\n", &path[1..])),
    })
    .await;
    let table = [
        ("/empty", FetchError::Broken),
        ("/noise", FetchError::Broken),
        ("/gzip", FetchError::Compressed),
        ("/short", FetchError::Broken),
        ("/bad-chunk", FetchError::Broken),
        ("/long-headers", FetchError::Broken),
        ("/404", FetchError::Status(404)),
        ("/500", FetchError::Status(500)),
        ("/204", FetchError::Status(204)),
        ("/206", FetchError::Status(206)),
        ("/304", FetchError::Status(304)),
    ];
    for (path, want) in table {
        assert_eq!(fetch(&server.url(path)).await, Err(want), "{path}");
    }
}

#[tokio::test]
async fn too_much_is_refused_early() {
    let server = serve(|_, path| match path {
        "/at-the-limit" => ok(&[7; 10_000]),
        "/over-the-limit" => ok(&[7; 10_001]),
        "/announced" => say("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\nx"),
        "/chunked" => Script::SayForEver(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            b"5\r\nabcde\r\n".to_vec(),
        ),
        _ => Script::SayForEver(b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![7; 1000]),
    })
    .await;
    assert_eq!(fetch(&server.url("/at-the-limit")).await.unwrap().len(), 10_000);
    for path in ["/over-the-limit", "/announced", "/chunked", "/endless"] {
        let start = Instant::now();
        assert_eq!(fetch(&server.url(path)).await, Err(FetchError::TooLarge { bytes_max: 10_000 }), "{path}");
        assert!(start.elapsed() < policy().total_timeout, "{path}");
    }
}

#[tokio::test]
async fn slow_hosts_run_into_the_deadline() {
    let server = serve(|_, path| match path {
        "/slow-body" => Script::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n".to_vec()),
        "/slow-header" => Script::Drip(b"HTTP/1.1 200 OK\r\nX-".to_vec()),
        "/slow-redirects" => redirect(302, "/silent"),
        _ => Script::Silent,
    })
    .await;
    let total_timeout = Duration::from_millis(300);
    let fetcher = fetcher_asking(FetchPolicy { total_timeout, ..policy() }, Answers::default());
    for path in ["/slow-body", "/slow-header", "/slow-redirects", "/silent"] {
        let start = Instant::now();
        let fetched = fetcher.fetch(&server.url(path).parse().unwrap()).await;
        assert_eq!(fetched, Err(FetchError::TooSlow(total_timeout)), "{path}");
        assert!(start.elapsed() < total_timeout * 10, "{path}");
    }
}

#[tokio::test]
async fn a_closed_port_and_a_forbidden_address_say_nothing_of_each_other() {
    let closed = TcpListener::bind((LOOPBACK, 0)).await.unwrap().local_addr().unwrap();
    assert_eq!(fetch(&format!("http://{closed}/")).await, Err(FetchError::NoAnswer));
    // Open or closed, a port of an address that is not allowed gives one and the same answer.
    let server = serve(|_, _| ok(b"picture")).await;
    let nothing_allowed = fetcher_asking(FetchPolicy::default(), Answers::default());
    for port in [closed.port(), server.address.port()] {
        let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
        assert_eq!(nothing_allowed.fetch(&url).await, Err(FetchError::NotPublic));
    }
    assert!(server.requests.lock().unwrap().is_empty());
}

/// A TLS server for `picture.example` and an authority that vouches for it.
async fn serve_tls() -> (SocketAddr, RootCertStore, AbortOnDropHandle<()>) {
    let certified = rcgen::generate_simple_self_signed(["picture.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            // A client that does not like the certificate leaves here.
            if let Ok(stream) = acceptor.accept(tcp).await {
                converse(stream, |_| ok(b"picture"), &Mutex::default()).await;
            }
        }
    });
    (address, roots, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn https_checks_the_certificate_and_the_name() {
    let (address, roots, _task) = serve_tls().await;
    let get = async |name: &str, roots: RootCertStore| {
        let answers = Answers::of(&[&[LOOPBACK]]);
        let fetcher = Fetcher::with_parts(policy(), Box::new(answers), roots);
        fetcher.fetch(&format!("https://{name}:{}/", address.port()).parse().unwrap()).await
    };
    assert_eq!(get("picture.example", roots.clone()).await, Ok(b"picture".to_vec()));
    assert_eq!(get("other.example", roots.clone()).await, Err(FetchError::Certificate));
    assert_eq!(get("127.0.0.1", roots).await, Err(FetchError::Certificate));
    assert_eq!(get("picture.example", RootCertStore::empty()).await, Err(FetchError::Certificate));
}

#[tokio::test]
async fn plain_http_on_an_https_url_is_an_error() {
    let server = serve(|_, _| ok(b"picture")).await;
    let url = format!("https://{}/", server.address);
    let fetched = tokio::time::timeout(Duration::from_secs(5), fetch(&url)).await.unwrap();
    assert!(matches!(fetched, Err(FetchError::Certificate | FetchError::TooSlow(_))), "{fetched:?}");
}

#[test]
fn sentences_name_the_field_and_the_limit() {
    for (error, want) in [
        (
            FetchError::TooLarge { bytes_max: 10 << 20 },
            "image URL gives more than 10485760 bytes (10 MB); send a smaller picture",
        ),
        (FetchError::TooSlow(Duration::from_secs(20)), "image URL takes longer than 20 s to fetch"),
        (FetchError::Port(25), "image URL must use port 80, 443 or one from 1024 on, not 25"),
    ] {
        assert_eq!(error.to_string(), want);
    }
}
