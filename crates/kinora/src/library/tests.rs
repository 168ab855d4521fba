use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// What happens to the next requests for files, the first first; afterwards everything is answered as asked.
#[derive(Debug, Clone, Copy)]
enum Fault {
    TooMany,
    Broken,
    /// So many bytes and then the connection is cut.
    CutAfter(usize),
    /// Nothing, and no error.
    Empty,
    /// One bit is wrong.
    Flip,
    /// Answers from the beginning whatever range is asked for.
    IgnoreRange,
}

#[derive(Default)]
struct Repository {
    files: HashMap<String, Bytes>,
    faults: Mutex<Vec<Fault>>,
    /// `path range authorization` of each request for a file's bytes.
    asked: Mutex<Vec<String>>,
    /// Where bytes really come from.
    store: Option<SocketAddr>,
    has_authorization_anywhere_else: Mutex<bool>,
    /// What the listing adds to the size of weights.
    swollen_bytes: AtomicU64,
}

struct TestHub {
    hub: Hub,
    repository: Arc<Repository>,
    folder: tempfile::TempDir,
    _serving: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Heard {
    listed_here_bytes: Vec<u64>,
    here_bytes: u64,
    waited: Vec<String>,
}

impl Watcher for Heard {
    fn listed(&mut self, _: &FileList, here_bytes: u64) {
        self.listed_here_bytes.push(here_bytes);
    }
    fn file(&mut self, _: &FileEntry) {}
    fn here(&mut self, bytes: u64) {
        self.here_bytes = bytes;
    }
    fn waiting(&mut self, why: &HubError, _: Duration) {
        self.waited.push(why.to_string());
    }
}

fn weights_bytes() -> Bytes {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into()
}

async fn listen(router: Router) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, AbortOnDropHandle::new(serving))
}

impl TestHub {
    async fn new(faults: &[Fault]) -> Self {
        Self::with(faults, &[]).await
    }

    /// A hub where there are `more` files.
    async fn with(faults: &[Fault], more: &[(&str, Bytes)]) -> Self {
        let files = [
            ("model_index.json", Bytes::from_static(b"{\"_class_name\": \"X\"}\n")),
            ("vae/empty.json", Bytes::new()),
            ("transformer/weights.safetensors", weights_bytes()),
            ("assets/picture.png", Bytes::from_static(b"not wanted")),
        ];
        let files = files.iter().chain(more).map(|(path, body)| ((*path).to_owned(), body.clone())).collect();
        let mut repository = Repository { files, ..Repository::default() };
        let mut faults = faults.to_vec();
        faults.reverse();
        repository.faults = Mutex::new(faults);
        let shared = Arc::new(Mutex::new(None::<Arc<Repository>>));
        let bytes = Router::new().route("/blob/{*path}", get(blob)).with_state(shared.clone());
        let (store, serving_store) = listen(bytes).await;
        repository.store = Some(store);
        let repository = Arc::new(repository);
        *shared.lock().unwrap() = Some(repository.clone());
        let api = Router::new()
            .route(
                "/api/models/{owner}/{name}/revision/main",
                get(|| async { format!("{{\"sha\": \"{COMMIT}\"}}") }),
            )
            .route("/api/models/{owner}/{name}/tree/{commit}", get(tree))
            .route("/{owner}/{name}/resolve/{commit}/{*path}", get(resolve))
            .with_state(repository.clone());
        let (address, serving_api) = listen(api).await;
        let endpoint = format!("http://localhost:{}", address.port()).parse().unwrap();
        let hub = Hub::new(endpoint, Some(TOKEN.to_owned()));
        let folder = tempfile::tempdir().unwrap();
        Self { hub, repository, folder, _serving: [serving_store, serving_api] }
    }

    fn library(&self) -> Library {
        Library { root: self.folder.path().to_owned() }
    }

    async fn pull(&self) -> (Result<(), PullError>, Heard) {
        self.pull_as(&CATALOGUE[0], None).await
    }

    async fn pull_as(&self, card: &'static Card, variant: Option<Variant>) -> (Result<(), PullError>, Heard) {
        let mut heard = Heard::default();
        let order = Order { card, variant, revision: "main" };
        let pulled = pull(&self.library(), order, &self.hub, &mut heard).await;
        (pulled, heard)
    }

    fn asked(&self) -> Vec<String> {
        self.repository.asked.lock().unwrap().clone()
    }

    fn weights_path(&self) -> PathBuf {
        self.library().folder(&CATALOGUE[0]).join("transformer/weights.safetensors")
    }
}

/// The listing, in two pages. Quantised files are in repositories of their own.
async fn tree(
    Shared(repository): Shared<Arc<Repository>>,
    UrlPath((_, name, _)): UrlPath<(String, String, String)>,
    uri: axum::http::Uri,
) -> impl IntoResponse {
    let quantised = name.to_ascii_lowercase().ends_with("-gguf");
    let mut entries = vec![serde_json::json!({"type": "directory", "oid": "d", "size": 0, "path": "vae"})];
    let mut paths: Vec<_> =
        repository.files.keys().filter(|path| path.ends_with(".gguf") == quantised).collect();
    paths.sort();
    let is_second = uri.query().unwrap_or_default().contains("cursor=2");
    for path in paths.into_iter().skip(if is_second { 2 } else { 0 }).take(if is_second { 99 } else { 2 }) {
        let body = &repository.files[path];
        let mut entry = serde_json::json!({"type": "file", "size": body.len(), "path": path});
        if path.ends_with(".safetensors") || path.ends_with(".gguf") {
            let sha256: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
            entry["oid"] = "pointer".into();
            let size_bytes = body.len() as u64 + repository.swollen_bytes.load(Ordering::Relaxed);
            entry["lfs"] = serde_json::json!({"oid": sha256, "size": size_bytes, "pointerSize": 134});
        } else {
            let blob = [format!("blob {}\0", body.len()).as_bytes(), body].concat();
            let sha1: String =
                <sha1::Sha1 as sha1::Digest>::digest(blob).iter().map(|b| format!("{b:02x}")).collect();
            entry["oid"] = sha1.into();
        }
        entries.push(entry);
    }
    let mut headers = HeaderMap::new();
    if !is_second {
        let next = format!("<{}&cursor=2>; rel=\"next\"", uri);
        headers.insert(header::LINK, next.parse().unwrap());
    }
    (headers, serde_json::Value::from(entries).to_string())
}

/// Sends the caller to where the bytes are, as the hub does for large files.
async fn resolve(
    Shared(repository): Shared<Arc<Repository>>,
    UrlPath((_, name, commit, path)): UrlPath<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let of_quantised = name.to_ascii_lowercase().ends_with("-gguf");
    assert_eq!(path.ends_with(".gguf"), of_quantised, "{path} is not in {name}");
    assert_eq!(commit, COMMIT, "every file is of the commit that was listed");
    assert_eq!(headers[header::AUTHORIZATION], format!("Bearer {TOKEN}"));
    let target = format!("http://{}/blob/{path}", repository.store.unwrap());
    (StatusCode::FOUND, [(header::LOCATION, target)]).into_response()
}

async fn blob(
    Shared(repository): Shared<Arc<Mutex<Option<Arc<Repository>>>>>,
    UrlPath(path): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    let repository = repository.lock().unwrap().clone().unwrap();
    if headers.contains_key(header::AUTHORIZATION) {
        *repository.has_authorization_anywhere_else.lock().unwrap() = true;
    }
    let range = headers.get(header::RANGE).map_or("", |range| range.to_str().unwrap());
    repository.asked.lock().unwrap().push(format!("{path} {range}").trim().to_owned());
    let whole = repository.files[&path].clone();
    let fault = if path.ends_with(".safetensors") { repository.faults.lock().unwrap().pop() } else { None };
    let from = range.strip_prefix("bytes=").map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let partial = |body: Bytes| {
        let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        (status, body).into_response()
    };
    match fault {
        None => partial(whole.slice(from..)),
        Some(Fault::Empty) => partial(Bytes::new()),
        Some(Fault::IgnoreRange) => whole.into_response(),
        Some(Fault::TooMany) => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response(),
        Some(Fault::Broken) => StatusCode::BAD_GATEWAY.into_response(),
        Some(Fault::Flip) => {
            let mut body = whole[from..].to_vec();
            body[1000] ^= 1;
            partial(body.into())
        }
        Some(Fault::CutAfter(count)) => {
            let sent = futures_util::stream::iter([Ok(whole.slice(from..from + count))]);
            // Cut only when what was sent before has left.
            let cut = futures_util::stream::once(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(std::io::Error::other("cut"))
            });
            let body = Body::from_stream(futures_util::StreamExt::chain(sent, cut));
            let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
            (status, body).into_response()
        }
    }
}

#[tokio::test]
async fn a_pull_brings_what_is_wanted_and_asks_for_nothing_when_repeated() {
    let test = TestHub::new(&[]).await;
    let (library, card) = (test.library(), &CATALOGUE[0]);
    assert_eq!(library.state(card).unwrap(), State::Absent);
    let (pulled, heard) = test.pull().await;
    pulled.unwrap();
    let size_bytes = weights_bytes().len() as u64 + 21;
    assert_eq!((heard.listed_here_bytes, heard.here_bytes), (vec![0], size_bytes));
    assert_eq!(library.state(card).unwrap(), State::Complete { size_bytes });
    assert_eq!(library.list(card).unwrap().unwrap().revision, COMMIT);
    assert_eq!(fs::read(test.weights_path()).unwrap(), weights_bytes());
    assert!(!library.folder(card).join("assets").exists(), "only what an engine reads is fetched");
    assert!(
        !*test.repository.has_authorization_anywhere_else.lock().unwrap(),
        "the token stays with the hub"
    );
    assert_eq!(library.find(Path::new("Wan2.2-TI2V-5B")).unwrap(), library.folder(card));
    let before = test.asked().len();
    let (again, heard) = test.pull().await;
    again.unwrap();
    assert_eq!((test.asked().len(), heard.listed_here_bytes), (before, vec![size_bytes]));
    assert_eq!(library.verify(card, |_| {}).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pull_outlives_a_busy_server_cut_connections_and_ignored_ranges() {
    let faults = [
        Fault::TooMany,
        Fault::Broken,
        Fault::CutAfter(100_000),
        Fault::CutAfter(50_000),
        Fault::IgnoreRange,
    ];
    let test = TestHub::new(&faults).await;
    let (pulled, heard) = test.pull().await;
    pulled.unwrap();
    assert_eq!(fs::read(test.weights_path()).unwrap(), weights_bytes());
    assert!(heard.waited[0].contains("429") && heard.waited[1].contains("502"), "{:?}", heard.waited);
    let asked: Vec<_> = test.asked().into_iter().filter(|asked| asked.contains("weights")).collect();
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked[3].ends_with("bytes=100000-") && asked[4].ends_with("bytes=150000-"), "{asked:?}");
}

#[tokio::test]
async fn a_pull_that_was_killed_goes_on_where_it_was() {
    let test = TestHub::new(&[]).await;
    test.pull().await.0.unwrap();
    let part = part_of(&test.weights_path());
    fs::remove_file(test.weights_path()).unwrap();
    fs::write(&part, &weights_bytes()[..777_777]).unwrap();
    let (here_bytes, size_bytes) = (777_777 + 21, weights_bytes().len() as u64 + 21);
    assert_eq!(test.library().state(&CATALOGUE[0]).unwrap(), State::Partial { here_bytes, size_bytes });
    assert!(matches!(test.library().find(Path::new(CATALOGUE[0].name)), Err(LibraryError::Partial(_))));
    test.pull().await.0.unwrap();
    assert_eq!(test.asked().last().unwrap(), "transformer/weights.safetensors bytes=777777-");
    assert_eq!(fs::read(test.weights_path()).unwrap(), weights_bytes());
}

#[tokio::test]
async fn damage_is_fetched_once_more_and_then_named() {
    let test = TestHub::new(&[Fault::Flip]).await;
    test.pull().await.0.unwrap();
    assert_eq!(fs::read(test.weights_path()).unwrap(), weights_bytes());

    let test = TestHub::new(&[Fault::Flip, Fault::Flip]).await;
    let error = test.pull().await.0.unwrap_err().to_string();
    assert!(error.starts_with("transformer/weights.safetensors does not have the hash"), "{error}");
    assert!(!test.weights_path().exists(), "nothing damaged gets its final name");

    test.pull().await.0.unwrap();
    let mut damaged = fs::read(test.weights_path()).unwrap();
    damaged[5] ^= 4;
    fs::write(test.weights_path(), damaged).unwrap();
    fs::remove_file(test.library().folder(&CATALOGUE[0]).join("model_index.json")).unwrap();
    let wrong = test.library().verify(&CATALOGUE[0], |_| {}).unwrap();
    assert_eq!(wrong, ["model_index.json is missing", "transformer/weights.safetensors is damaged"]);
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_variant_stands_in_for_the_weights_that_it_replaces() {
    let test = TestHub::with(
        &[],
        &[
            ("transformer/config.json", bytes("{}")),
            ("transformer/weights.safetensors.index.json", bytes("{ }")),
            ("transformer_2/config.json", bytes("{  }")),
            ("transformer_2/weights.safetensors", bytes("full low")),
            ("text_encoder/model.safetensors", bytes("full text")),
            ("vae/weights.safetensors", bytes("full vae")),
            ("HighNoise/Wan2.2-I2V-A14B-HighNoise-Q4_K_M.gguf", bytes("high")),
            ("HighNoise/Wan2.2-I2V-A14B-HighNoise-Q8_0.gguf", bytes("high, finer")),
            ("LowNoise/Wan2.2-I2V-A14B-LowNoise-Q4_K_M.gguf", bytes("low")),
            ("umt5-xxl-encoder-Q4_K_M.gguf", bytes("text")),
        ],
    )
    .await;
    let (library, card) = (test.library(), &CATALOGUE[1]);
    test.pull_as(card, Some(Variant::Q4)).await.0.unwrap();
    let list = library.list(card).unwrap().unwrap();
    assert_eq!((list.variant(), list.repository.as_str()), ("q4_k_m", card.repository));
    let mut paths: Vec<_> = list.files.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "model_index.json",
            "text_encoder/umt5-xxl-encoder-Q4_K_M.gguf",
            "transformer/Wan2.2-I2V-A14B-HighNoise-Q4_K_M.gguf",
            "transformer/config.json",
            "transformer_2/Wan2.2-I2V-A14B-LowNoise-Q4_K_M.gguf",
            "transformer_2/config.json",
            "vae/empty.json",
            "vae/weights.safetensors",
        ]
    );
    let low = library.folder(card).join("transformer_2/Wan2.2-I2V-A14B-LowNoise-Q4_K_M.gguf");
    assert_eq!(fs::read(&low).unwrap(), b"low");
    assert!(matches!(library.state(card).unwrap(), State::Complete { .. }));
    assert_eq!(library.verify(card, |_| {}).unwrap(), Vec::<String>::new());

    // What was begun is finished as it was begun, and not mixed with another variant.
    fs::remove_file(&low).unwrap();
    let error = test.pull_as(card, Some(Variant::Full)).await.0.unwrap_err().to_string();
    assert!(error.contains("as q4_k_m") && error.contains("kinora models rm wan2.2-i2v-a14b"), "{error}");
    test.pull_as(card, None).await.0.unwrap();
    assert_eq!(fs::read(&low).unwrap(), b"low");
    assert!(library.remove(card).unwrap());
    let error = test.pull_as(card, Some(Variant::Q8)).await.0.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "QuantStack/Wan2.2-I2V-A14B-GGUF has no LowNoise/Wan2.2-I2V-A14B-LowNoise-Q8_0.gguf"
        ),
        "{error}"
    );
    assert_eq!(library.state(card).unwrap(), State::Absent, "nothing is begun that cannot be finished");
}

#[test]
fn every_variant_has_the_name_that_it_is_asked_by() {
    for variant in <Variant as clap::ValueEnum>::value_variants() {
        assert_eq!(<Variant as clap::ValueEnum>::from_str(variant.name(), false), Ok(*variant));
    }
}

#[tokio::test]
async fn what_does_not_pass_is_said_at_once() {
    let test = TestHub::new(&[]).await;
    let mut heard = Heard::default();
    let order = Order { card: &CATALOGUE[0], variant: None, revision: "no-such" };
    let error = pull(&test.library(), order, &test.hub, &mut heard).await.unwrap_err();
    assert!(error.to_string().contains("404 Not Found; is the name of the mirror right"), "{error}");
    assert!(heard.waited.is_empty());

    let test = TestHub::new(&[Fault::Empty; 20]).await;
    let error = test.pull().await.0.unwrap_err().to_string();
    assert_eq!(
        error,
        "transformer/weights.safetensors breaks off after 0 of 1200000 bytes each time; what is here is kept"
    );

    let card = &CATALOGUE[1];
    assert!(matches!(test.library().find(Path::new(card.name)), Err(LibraryError::Absent(_))));
    assert!(matches!(test.library().find(Path::new("some/folder")), Err(LibraryError::NoFolder(_))));
    assert!(matches!(test.library().verify(card, |_| {}), Err(LibraryError::Absent(_))));
    assert!(!test.library().remove(card).unwrap());
}

#[tokio::test]
async fn a_set_that_is_being_fetched_is_not_removed() {
    let test = TestHub::new(&[]).await;
    test.pull().await.0.unwrap();
    let (library, card) = (test.library(), &CATALOGUE[0]);
    let fetching = super::pull::lock(&library.folder(card)).unwrap();
    assert!(matches!(library.remove(card), Err(LibraryError::InUse(_))));
    drop(fetching);
    assert!(library.remove(card).unwrap());
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_said_before_anything_is_fetched() {
    let test = TestHub::new(&[]).await;
    test.repository.swollen_bytes.store(1 << 60, Ordering::Relaxed);
    let error = test.pull().await.0.unwrap_err();
    assert!(
        matches!(error, PullError::DiskTooSmall { needed_bytes, .. } if needed_bytes > 1 << 60),
        "{error}"
    );
    assert!(error.to_string().contains("more on the disk"), "{error}");
    assert!(test.asked().is_empty(), "{:?}", test.asked());
}

#[test]
fn listed_paths_stay_inside_their_folder() {
    for path in ["a.json", "vae/config.json", "a/b/c"] {
        assert!(stays_inside(path), "{path}");
    }
    for path in
        ["", "/etc/passwd", "../x", "a/../../x", "./a", "a\\b", "c:x", "a.part", "kinora-files.json", "a\0"]
    {
        assert!(!stays_inside(path), "{path:?}");
    }
}
