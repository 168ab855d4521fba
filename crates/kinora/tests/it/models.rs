//! `kinora models` as a command: from a hub on this machine to a clip without one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use crate::server::picture_bytes;
use crate::wan::model;

const NAME: &str = "wan2.2-ti2v-5b";
const REPOSITORY: &str = "Wan-AI/Wan2.2-TI2V-5B-Diffusers";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LICENCE: &str = "The terms of the tiny model.\n";

/// A hub that has the tiny model under a published name, for those who have a token.
struct Hub {
    address: SocketAddr,
    contents: Arc<Contents>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Bytes>,
    /// What every request gave as its authorization.
    authorizations: Mutex<Vec<String>>,
}

impl Contents {
    fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map_or("", |given| given.to_str().unwrap());
        self.authorizations.lock().unwrap().push(given.to_owned());
        given == "Bearer hf_secret"
    }
}

impl Hub {
    async fn start() -> Self {
        let mut contents = Contents::default();
        contents.files.insert("LICENSE.txt".to_owned(), LICENCE.into());
        add_files(&model(), "", &mut contents.files);
        let contents = Arc::new(contents);
        let router = Router::new()
            .route("/api/models/{owner}/{name}/revision/main", get(revision))
            .route("/api/models/{owner}/{name}/tree/{commit}", get(tree))
            .route("/{owner}/{name}/resolve/{commit}/{*path}", get(resolve))
            .with_state(contents.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, contents, _serving: AbortOnDropHandle::new(serving) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn add_files(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Bytes>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            add_files(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap().into());
        }
    }
}

async fn revision(State(contents): State<Arc<Contents>>, headers: HeaderMap) -> Response {
    if !contents.admits(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    json!({ "sha": COMMIT }).to_string().into_response()
}

async fn tree(State(contents): State<Arc<Contents>>, headers: HeaderMap) -> Response {
    if !contents.admits(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let entry = |(path, body): (&String, &Bytes)| {
        let sha256: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        let lfs = json!({"oid": sha256, "size": body.len(), "pointerSize": 134});
        json!({"type": "file", "oid": "pointer", "size": body.len(), "path": path, "lfs": lfs})
    };
    Value::from(contents.files.iter().map(entry).collect::<Vec<_>>()).to_string().into_response()
}

async fn resolve(
    State(contents): State<Arc<Contents>>,
    UrlPath((owner, name, commit, path)): UrlPath<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    assert_eq!((format!("{owner}/{name}"), commit.as_str()), (REPOSITORY.to_owned(), COMMIT));
    if !contents.admits(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    contents.files[&path].clone().into_response()
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program in `folder` with nothing else in its environment than `variables`.
fn run(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
    let command = command.args(arguments).current_dir(folder).env_clear().envs(variables.iter().copied());
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_fetched_by_name_and_need_no_hub_afterwards() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kinora = |arguments: &[&str]| run(folder.path(), &[], arguments);
    let states = || {
        let listed: Value = serde_json::from_str(&kinora(&["models", "list", "--json"]).stdout).unwrap();
        let state = |row: &Value| row["state"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(state).collect::<Vec<_>>()
    };
    assert_eq!(states(), ["absent", "absent"]);
    let variables = [("HF_ENDPOINT", hub.url()), ("HF_TOKEN", "hf_secret".to_owned())];
    let pull = |variables: &[(&str, String)]| {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(folder.path(), &variables, &["models", "pull", NAME])
    };
    let pulled = pull(&variables);
    assert_eq!((pulled.code, pulled.stdout.as_str()), (Some(0), ""), "{}", pulled.stderr);
    let source = format!("Wan2.2 TI2V 5B by its makers under Apache-2.0, from {}/{REPOSITORY}", hub.url());
    for part in [source.as_str(), "wan2.2-ti2v-5b is complete in kinora-models/wan2.2-ti2v-5b"] {
        assert!(pulled.stderr.contains(part), "{}", pulled.stderr);
    }
    assert!(!pulled.stderr.contains("hf_secret"), "{}", pulled.stderr);
    let parts = ["files of 3.3 MB, of which 0 B are here", "vae/diffusion_pytorch_model.safetensors, "];
    for part in parts {
        assert!(pulled.stderr.contains(part), "without a terminal each file is a line: {}", pulled.stderr);
    }
    let asked_count = hub.contents.authorizations.lock().unwrap().len();
    assert_eq!(asked_count, hub.contents.files.len() + 2, "each file once, the listing and its revision");
    assert_eq!(states(), ["complete", "absent"]);
    let here = folder.path().join("kinora-models").join(NAME);
    assert_eq!(std::fs::read_to_string(here.join("LICENSE.txt")).unwrap(), LICENCE);

    drop(hub);
    assert_eq!(pull(&variables).code, Some(0), "what is complete asks nobody");
    let info = kinora(&["models", "info", NAME]).stdout;
    for part in ["licence     Apache-2.0", "complete, ", COMMIT, "vae/diffusion_pytorch_model.safetensors"] {
        assert!(info.contains(part), "{info}");
    }
    let verified = kinora(&["models", "verify", NAME]);
    assert!(verified.code == Some(0) && verified.stderr.contains("is whole"), "{}", verified.stderr);
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    let flags = ["--engine", "wan", "--model", NAME, "--steps", "1", "--size", "64x32", "--frames", "5"];
    let made = kinora(&[&["animate", "photo.jpg"], &flags[..]].concat());
    assert!(made.code == Some(0) && folder.path().join("photo.mp4").exists(), "{}", made.stderr);

    std::fs::write(here.join("vae/config.json"), "{}").unwrap();
    let damaged = kinora(&["models", "verify", NAME]);
    assert!(damaged.code == Some(1) && damaged.stderr.contains("vae/config.json"), "{}", damaged.stderr);
    let removed = kinora(&["models", "rm", NAME]);
    assert!(removed.code == Some(0) && !here.exists(), "{}", removed.stderr);
    let again = kinora(&["models", "rm", NAME]);
    assert!(again.code == Some(3) && again.stderr.contains("is not here"), "{}", again.stderr);
    let gone = kinora(&["animate", "photo.jpg", "--engine", "wan", "--model", NAME]);
    assert!(
        gone.code == Some(2) && gone.stderr.contains("kinora models pull wan2.2-ti2v-5b"),
        "{}",
        gone.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_and_a_token_of_our_own_come_before_those_that_programs_share() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = hub.url();
    let pull = |variables: &[(&str, &str)], flags: &[&str]| {
        run(folder.path(), variables, &[&["models", "pull", NAME], flags].concat())
    };
    let refused = pull(&[], &["--hub", &url]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("401") && refused.stderr.contains("HF_TOKEN"), "{}", refused.stderr);
    let wrong = pull(&[("HF_ENDPOINT", "ftp://hub")], &[]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("HF_ENDPOINT"), "{}", wrong.stderr);
    let unknown = run(folder.path(), &[], &["models", "pull", "wan9"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains(NAME), "{}", unknown.stderr);
    let shared = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_TOKEN", "hf_wrong")];
    let own = [("KINORA_HUB", url.as_str()), ("KINORA_HF_TOKEN", "hf_secret")];
    let pulled = pull(&[shared, own].concat(), &["--models-dir", "elsewhere"]);
    assert_eq!(pulled.code, Some(0), "{}", pulled.stderr);
    assert!(folder.path().join("elsewhere").join(NAME).join("model_index.json").exists());
    let listed = run(folder.path(), &[("KINORA_MODELS_DIR", "elsewhere")], &["models", "list"]).stdout;
    let rows: Vec<&str> = listed.lines().collect();
    assert!(rows[0].contains("complete") && rows[1].contains("not fetched"), "{listed}");
    assert!(rows.iter().all(|row| row.contains("Apache-2.0")), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_of_every_set_how_much_is_here() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let lines = || run(folder.path(), &[], &["doctor"]).stdout;
    let none = lines();
    assert!(none.contains("weights    wan2.2-ti2v-5b not fetched, wan2.2-i2v-a14b not fetched\n"), "{none}");
    let url = hub.url();
    let variables = [("KINORA_HUB", url.as_str()), ("HF_TOKEN", "hf_secret")];
    assert_eq!(run(folder.path(), &variables, &["models", "pull", NAME]).code, Some(0));
    let whole = lines();
    assert!(whole.contains("weights    wan2.2-ti2v-5b complete, 3.3 MB, wan2.2-i2v-a14b not"), "{whole}");
    let tokenizer = folder.path().join("kinora-models").join(NAME).join("tokenizer/tokenizer.json");
    std::fs::remove_file(tokenizer).unwrap();
    let told = run(folder.path(), &[], &["doctor", "--json"]);
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    let states = report["weights"].as_array().unwrap().iter().map(|set| (&set["name"], &set["state"]));
    assert_eq!(
        states.collect::<Vec<_>>(),
        [(&json!(NAME), &json!("partial")), (&json!("wan2.2-i2v-a14b"), &json!("absent"))]
    );
    assert_eq!(told.code, Some(0), "nothing was asked of them");
    std::fs::write(folder.path().join("kinora-models").join(NAME).join("kinora-files.json"), "{").unwrap();
    let told = run(folder.path(), &[], &["doctor"]);
    assert_eq!(told.code, Some(0), "{}", told.stdout);
    assert!(told.stdout.contains("weights    wan2.2-ti2v-5b not known ("), "{}", told.stdout);
}
