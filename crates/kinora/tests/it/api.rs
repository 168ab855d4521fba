//! The wire contract, over real HTTP, with the test card as engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::server::{
    Answer, BASE, BrokenEngine, GatedEngine, MODEL, TestServer, picture_base64, picture_bytes,
};
use kinora::models::ModelNames;

fn keys_of(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn assert_error(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["error"].as_str().unwrap().len() > 10, "{body}");
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_accepted_made_and_downloaded() {
    let server = TestServer::start().await;
    let accepted =
        server.submit(json!({"image": picture_base64(), "prompt": "x", "seed": 7, "cfg_scale": "0.3"})).await;
    assert_eq!(accepted.status, 200);
    let accepted = accepted.json();
    assert_eq!(
        keys_of(&accepted),
        ["created_at", "model", "queued_at", "request_id", "status", "updated_at"]
    );
    assert_eq!((&accepted["status"], &accepted["model"]), (&json!("queued"), &json!(MODEL)));
    let record = server.finished(accepted["request_id"].as_str().unwrap()).await;
    assert_eq!(record["status"], "success", "{record}");
    let expected = [
        "created_at",
        "is_public",
        "model",
        "org_id",
        "outcome",
        "payload",
        "priority",
        "queued_at",
        "qworker_id",
        "request_id",
        "status",
        "updated_at",
        "user_id",
    ];
    assert_eq!(keys_of(&record), expected);
    assert_eq!(
        (&record["org_id"], &record["user_id"], &record["is_public"]),
        (&json!("org"), &json!("user"), &json!(false))
    );
    let payload = &record["payload"];
    assert_eq!(
        (&payload["prompt"], &payload["cfg_scale"], &payload["seed"]),
        (&json!("x"), &json!(0.3), &json!(7))
    );
    let input = server.open(&payload["image"], "GET", &[]).await;
    assert_eq!((input.status, input.header("content-type")), (200, "image/jpeg"));
    assert_eq!(input.body, picture_bytes());
    let outcome = &record["outcome"];
    assert_eq!(
        (&outcome["seed"], &outcome["duration"], &outcome["engine"]),
        (&json!(7), &json!("5"), &json!("pattern"))
    );
    assert_eq!(outcome["media_urls"], json!([{"id": "0", "url": outcome["video_url"]}]));
    assert!(outcome["video_url"].as_str().unwrap().ends_with(".mp4"));
    let video = server.open(&outcome["video_url"], "GET", &[]).await;
    assert_eq!((video.status, video.header("content-type")), (200, "video/mp4"));
    assert_eq!(&video.body[4..8], b"ftyp");
    assert_eq!(video.body.len() as u64, outcome["size_bytes"].as_u64().unwrap());
    let thumbnail = server.open(&outcome["thumbnail_image_url"], "GET", &[]).await;
    assert_eq!((thumbnail.status, thumbnail.header("content-type")), (200, "image/jpeg"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_honour_ranges_head_and_validators() {
    let server = TestServer::start().await;
    let record = server.finished(&server.accepted().await).await;
    let url = &record["outcome"]["video_url"];
    let whole = server.open(url, "GET", &[]).await;
    let etag = whole.header("etag").to_owned();
    let part = server.open(url, "GET", &[("range", "bytes=10-19")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &whole.body[10..20]));
    assert_eq!(part.header("content-range"), format!("bytes 10-19/{}", whole.body.len()));
    let tail = server.open(url, "GET", &[("range", "bytes=-5")]).await;
    assert_eq!((tail.status, &tail.body[..]), (206, &whole.body[whole.body.len() - 5..]));
    let outside = server.open(url, "GET", &[("range", "bytes=99999999-")]).await;
    assert_eq!(
        (outside.status, outside.header("content-range")),
        (416, format!("bytes */{}", whole.body.len()).as_str())
    );
    let head = server.open(url, "HEAD", &[]).await;
    assert_eq!(
        (head.status, head.body.len(), head.header("content-length")),
        (200, 0, whole.body.len().to_string().as_str())
    );
    assert_eq!(head.header("accept-ranges"), "bytes");
    assert_eq!(server.open(url, "GET", &[("if-none-match", &etag)]).await.status, 304);
    assert_eq!(server.open(url, "GET", &[("if-none-match", "\"other\"")]).await.status, 200);
    assert_eq!(
        server.open(url, "GET", &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await.status,
        200
    );
    assert_eq!(server.open(url, "GET", &[("range", "bytes=0-1"), ("if-range", &etag)]).await.status, 206);
    assert_error(
        &server.open(&json!(url.as_str().unwrap().replace("video.mp4", "thumbnail.jpg")), "GET", &[]).await,
        404,
        "no_such_file",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_bases_answer_alike() {
    let server = TestServer::start_idle().await;
    let body = json!({"model": MODEL.to_lowercase(), "payload": {"image": picture_base64()}}).to_string();
    for base in kinora::api::BASES {
        let accepted = server.call("POST", &format!("{base}/requests"), body.clone()).await.json();
        assert_eq!(accepted["model"], MODEL, "answered in canonical form");
        let id = accepted["request_id"].as_str().unwrap();
        for path in
            [format!("/requests/{id}"), "/requests".into(), "/models".into(), format!("/models/{MODEL}")]
        {
            assert_eq!(server.call("GET", &format!("{base}{path}"), "").await.status, 200, "{base}{path}");
        }
        let cancelled = server.call("POST", &format!("{base}/requests/{id}/cancel"), "").await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
        assert_eq!(
            server.call("POST", &format!("{base}/upload-url"), r#"{"file_type":"png"}"#).await.status,
            200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_needed_and_must_be_of_the_organisation() {
    let server = TestServer::start_idle().await;
    let path = format!("{BASE}/requests");
    for headers in
        [&[][..], &[("authorization", "")], &[("authorization", "Basic x")], &[("authorization", "Bearer ")]]
    {
        let answer = server.send("GET", &path, headers, "").await;
        assert_error(&answer, 401, "key_missing");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_error(&server.call_as("kin_wrong", "GET", &path, "").await, 401, "key_unknown");
    let bearer = format!("bearer {}", server.key);
    let with_org = |org: &'static str| [("authorization", bearer.as_str()), ("x-organization-id", org)];
    assert_eq!(server.send("GET", &path, &with_org("org"), "").await.status, 200);
    assert_error(&server.send("GET", &path, &with_org("other"), "").await, 403, "wrong_organisation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_working_within_two_seconds() {
    let server = TestServer::start_idle().await;
    let path = format!("{BASE}/requests");
    assert_eq!(server.call("GET", &path, "").await.status, 200);
    let id = server.store.keys().await.unwrap()[0].id.clone();
    server.store.revoke_key(&id, 1).await.unwrap();
    let started = Instant::now();
    while server.call("GET", &path, "").await.status != 401 {
        assert!(started.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_never_see_each_other() {
    let server = TestServer::start_idle().await;
    let mine = server.accepted().await;
    let other = server.key_of("other").await;
    let path = format!("{BASE}/requests/{mine}");
    for (method, path) in
        [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/cancel"))]
    {
        assert_error(&server.call_as(&other, method, &path, "").await, 404, "no_such_request");
    }
    let listed = server.call_as(&other, "GET", &format!("{BASE}/requests"), "").await.json();
    assert_eq!(listed, json!({"requests": [], "total": 0}));
    assert_eq!(server.record(&mine).await["status"], "queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_filters_and_pages() {
    let server = TestServer::start_idle().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(server.accepted().await);
    }
    server.call("DELETE", &format!("{BASE}/requests/{}", ids[0]), "").await;
    let listed = |query: &'static str| {
        let server = &server;
        async move {
            let answer = server.get(&format!("/requests{query}")).await;
            assert_eq!(answer.status, 200, "{query}: {:?}", answer.body);
            let body = answer.json();
            let found: Vec<String> = body["requests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["request_id"].as_str().unwrap().to_owned())
                .collect();
            (found, body["total"].as_i64().unwrap())
        }
    };
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    assert_eq!(listed("").await, (newest_first.clone(), 5));
    assert_eq!(listed("?limit=2&offset=1").await, (newest_first[1..3].to_vec(), 5));
    assert_eq!(listed("?status=cancelled").await, (vec![ids[0].clone()], 1));
    assert_eq!(listed("?model_id=kling-image2video-v2.1-standard&limit=100").await.1, 5);
    assert_eq!(listed("?model=Other").await, (vec![], 0));
    assert_eq!(listed("?offset=99&unknown=1").await, (vec![], 5));
    for query in ["?limit=0", "?limit=101", "?limit=x", "?offset=-1", "?status=done"] {
        assert_error(&server.get(&format!("/requests{query}")).await, 400, "bad_field");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_says_where_it_stands_and_the_urgent_go_first() {
    let server = TestServer::start_idle().await;
    let usual = server.accepted().await;
    let body = json!({"model": MODEL, "payload": {"image": picture_base64()}, "priority": 9}).to_string();
    let urgent = server.call("POST", &format!("{BASE}/requests"), body).await.json();
    let stands = server.record(&usual).await;
    assert_eq!((&stands["queue"], &stands["priority"]), (&json!({"position": 2}), &json!(0)));
    let stands = server.record(urgent["request_id"].as_str().unwrap()).await;
    assert_eq!((&stands["queue"], &stands["priority"]), (&json!({"position": 1}), &json!(9)));
    for priority in [json!(-1), json!(10), json!(0.5), json!("9"), json!([])] {
        let body = json!({"model": MODEL, "payload": {"image": picture_base64()}, "priority": priority});
        let refused = server.call("POST", &format!("{BASE}/requests"), body.to_string()).await;
        assert_error(&refused, 400, "bad_field");
        assert_eq!(refused.json()["field"], "priority");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_described() {
    let server = TestServer::start().await;
    // The worker says that it is there a moment after the server answers.
    let started = std::time::Instant::now();
    while server.get("/models").await.json()["models"][0]["qworkers"] != json!(1) {
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "no worker shows up");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let list = server.get("/models").await.json();
    assert_eq!(list["model_ids"], json!([MODEL]));
    let model = server.get(&format!("/models/{}", MODEL.to_uppercase())).await.json();
    assert_eq!(list["models"], json!([model]));
    assert_eq!((&model["host_type"], &model["qworkers"]), (&json!("internal"), &json!(1)));
    let described = model["detailed_description"].as_str().unwrap();
    assert!(described.contains("not the hosted model") && described.contains("`pattern`"), "{described}");
    let names: Vec<_> =
        model["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prompt", "image", "duration", "negative_prompt", "cfg_scale", "seed"]);
    assert_error(&server.get("/models/other").await, 404, "no_such_model");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_models_are_served_under_names_of_the_operators_choice() {
    let names = ModelNames::new(&["Alpha".into(), "beta-2".into()]);
    let server = TestServer::start_with(|settings| settings.names = names).await;
    let list = server.get("/models").await.json();
    assert_eq!(list["model_ids"], json!(["Alpha", "beta-2"]));
    let described = list["models"][0]["detailed_description"].as_str().unwrap();
    assert!(described.starts_with("# Alpha\n") && described.contains("`pattern`"), "{described}");
    assert!(!described.contains("hosted"), "only the hosted model's name needs that word: {described}");
    let submit = |model: &str| {
        let body = json!({"model": model, "payload": {"image": picture_base64()}}).to_string();
        let path = format!("{BASE}/requests");
        let server = &server;
        async move { server.call("POST", &path, body).await }
    };
    for (asked, answered) in [("alpha", "Alpha"), ("beta-2", "beta-2"), ("ALPHA", "Alpha")] {
        let accepted = submit(asked).await.json();
        assert_eq!(accepted["model"], answered);
        let done = server.finished(accepted["request_id"].as_str().unwrap()).await;
        assert_eq!((&done["status"], &done["model"]), (&json!("success"), &json!(answered)));
    }
    // The worker has said by now that it is there.
    let model = server.get("/models/BETA-2").await.json();
    assert_eq!((&model["model"], &model["qworkers"]), (&json!("beta-2"), &json!(1)));
    assert_eq!(server.get("/models").await.json()["models"][1], model);
    assert_error(&submit(MODEL).await, 404, "no_such_model");
    assert_eq!(server.get("/requests?model_id=aLPHA").await.json()["total"], 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_makes_at_the_moment_says_so() {
    let server = TestServer::start_idle().await;
    let model = server.get(&format!("/models/{MODEL}")).await.json();
    let described = model["brief_description"].as_str().unwrap();
    assert!(model["qworkers"] == 0 && described.contains("no worker"), "{model}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_payload_tells_whether_a_model_exists_and_queues_nothing() {
    let server = TestServer::start_idle().await;
    let path = format!("{BASE}/requests");
    let ask = |model: &str| json!({"model": model, "payload": {}}).to_string();
    assert_error(&server.call("POST", &path, ask("Other")).await, 404, "no_such_model");
    let long = server.call("POST", &path, ask(&"é".repeat(1_000_000))).await;
    assert_error(&long, 404, "no_such_model");
    assert!(long.body.len() < 1000, "what a caller sends is not sent back at length");
    assert_error(&server.call("POST", &path, ask(MODEL)).await, 400, "bad_field");
    assert_eq!(server.get("/requests").await.json()["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_wrong_methods_and_large_bodies_are_answered_in_json() {
    let server = TestServer::start_idle().await;
    assert_error(&server.call("GET", "/api/v1/other", "").await, 404, "no_such_path");
    assert_error(&server.get("/requests/not-a-uuid").await, 404, "no_such_request");
    assert_error(&server.get("/requests/00000000-0000-0000-0000-000000000000").await, 404, "no_such_request");
    let answer = server.call("PUT", &format!("{BASE}/requests"), "").await;
    assert_error(&answer, 405, "wrong_method");
    assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
    assert_error(
        &server.call("POST", &format!("{BASE}/requests"), vec![b' '; (16 << 20) + 1]).await,
        413,
        "body_too_large",
    );
    assert_error(
        &server.call("POST", &format!("{BASE}/requests"), "[".repeat(100_000)).await,
        400,
        "bad_json",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_request_shows_progress_and_is_cancelled_within_a_second() {
    let gate = Arc::new(Semaphore::new(0));
    let engine = Arc::new(GatedEngine { gate: gate.clone() });
    let server = TestServer::start_with(|settings| settings.engine = Some(engine)).await;
    let (first, second) = (server.accepted().await, server.accepted().await);
    let record = server.until(&first, |record| record["progress"].is_object()).await;
    assert_eq!((&record["status"], &record["progress"]["stage"]), (&json!("processing"), &json!("gate")));
    assert_ne!(record["qworker_id"], "");
    let path = format!("{BASE}/requests/{first}");
    assert_eq!(server.call("DELETE", &path, "").await.json()["status"], "cancelled");
    assert_error(&server.call("DELETE", &path, "").await, 409, "already_ended");
    let cancelled = Instant::now();
    server.until(&second, |record| record["status"] == "processing").await;
    assert!(cancelled.elapsed() < Duration::from_secs(1), "the engine went on");
    gate.add_permits(1);
    assert_eq!(server.finished(&second).await["status"], "success");
    let record = server.record(&first).await;
    assert_eq!((&record["status"], &record["outcome"]), (&json!("cancelled"), &Value::Null));
    let outputs = server.folder.path().join("outputs");
    assert_eq!(std::fs::read_dir(outputs).unwrap().count(), 1, "only what succeeded is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_gives_the_running_request_back_without_a_lost_attempt() {
    let engine = Arc::new(GatedEngine { gate: Arc::new(Semaphore::new(0)) });
    let server = TestServer::start_with(|settings| {
        settings.engine = Some(engine);
        settings.grace = Duration::ZERO;
    })
    .await;
    let (id, folder) = (server.accepted().await, server.folder.clone());
    server.until(&id, |record| record["status"] == "processing").await;
    server.stop().await;
    let server = TestServer::start_on(folder, |_| {}).await;
    assert_eq!(server.finished(&id).await["status"], "success");
    let job = server.store.get(id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((job.attempt, job.attempts_lost), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_engine_broke_ends_and_the_next_one_makes_the_request() {
    let server = TestServer::start_with(|settings| settings.engine = Some(Arc::new(BrokenEngine))).await;
    let (id, folder) = (server.accepted().await, server.folder.clone());
    let told = server.ended().await.unwrap_err().to_string();
    assert!(told.contains("the engine `broken` cannot compute in this process any more"), "{told}");
    let server = TestServer::start_on(folder, |_| {}).await;
    assert_eq!(server.finished(&id).await["status"], "success");
    let job = server.store.get(id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((job.attempt, job.attempts_lost), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_can_be_used_as_image_and_its_url_needs_no_key() {
    let server = TestServer::start().await;
    let grant = server.call("POST", &format!("{BASE}/upload-url"), r#"{"file_type":"jpg"}"#).await.json();
    let (upload, public) = (grant["upload_url"].clone(), grant["public_url"].clone());
    assert_error(&server.submit(json!({"image": public})).await, 400, "bad_field");
    assert_error(&server.submit(json!({"image": upload})).await, 400, "bad_field");
    assert_error(&server.open(&public, "GET", &[]).await, 404, "no_such_file");
    let path =
        upload.as_str().unwrap().strip_prefix(&format!("http://{}", server.address)).unwrap().to_owned();
    let put = |content_type: &'static str, body: Vec<u8>| {
        let (server, path) = (&server, &path);
        async move { server.send("PUT", path, &[("content-type", content_type)], body).await }
    };
    assert_error(&put("text/plain", picture_bytes()).await, 400, "bad_field");
    assert_error(&put("image/jpeg", b"not a picture".to_vec()).await, 400, "bad_field");
    assert_error(&put("image/jpeg", vec![0; (10 << 20) + 1]).await, 413, "body_too_large");
    assert_eq!(put("image/jpg", picture_bytes()).await.status, 200);
    assert_eq!(server.open(&public, "GET", &[]).await.body, picture_bytes());
    let accepted = server.submit(json!({"image": public})).await;
    assert_eq!(accepted.status, 200, "{:?}", accepted.body);
    let record = server.finished(accepted.json()["request_id"].as_str().unwrap()).await;
    assert_eq!((&record["status"], &record["payload"]["image"]), (&json!("success"), &public));
    let thumbnail = &record["outcome"]["video_url"];
    assert_error(&server.submit(json!({"image": thumbnail})).await, 400, "bad_field");
    let forged = upload
        .as_str()
        .unwrap()
        .replace("/uploads/", "/uploads/A")
        .replace(&format!("http://{}", server.address), "");
    assert_error(&server.send("PUT", &forged, &[("content-type", "image/png")], "").await, 403, "grant_void");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_answer_429_and_say_when_to_come_back() {
    let server = TestServer::start_with(|settings| {
        settings.engine = None;
        settings.store.queued_max = 2;
    })
    .await;
    server.accepted().await;
    server.accepted().await;
    let refused = server.submit(json!({"image": picture_base64()})).await;
    assert_error(&refused, 429, "queue_full");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    let server = TestServer::start_with(|settings| settings.rate_per_second = 2.try_into().ok()).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(server.get("/requests").await);
    }
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_error(refused, 429, "too_fast");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key_and_the_documents_are_served() {
    let server = TestServer::start_idle().await;
    assert_eq!(server.send("GET", "/healthz", &[], "").await.json()["status"], "ok");
    server.accepted().await;
    let ready = server.send("GET", "/readyz", &[], "").await.json();
    assert_eq!((&ready["queued"], &ready["processing"]), (&json!(1), &json!(0)));
    let document = server.send("GET", "/openapi.json", &[], "").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key(&format!("{BASE}/requests/{{request_id}}")), "{:?}", paths.keys());
    let page = server.send("GET", "/docs/", &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let answer = server.send("GET", "/healthz", &[("x-request-id", "my-id-1")], "").await;
    assert_eq!(answer.header("x-request-id"), "my-id-1");
    let answer = server.send("GET", "/healthz", &[("x-request-id", "no spaces allowed")], "").await;
    assert_eq!(answer.header("x-request-id").len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_addresses_begin_with_the_public_url_where_one_is_set() {
    let server = TestServer::start_with(|settings| {
        settings.engine = None;
        settings.public_url = Some("https://video.example.com/k/".into());
    })
    .await;
    let record = server.record(&server.accepted().await).await;
    let image = record["payload"]["image"].as_str().unwrap();
    assert!(image.starts_with("https://video.example.com/k/media/"), "{image}");
    let own = image.replace("https://video.example.com/k", "http://another.name");
    assert_eq!(
        server.submit(json!({"image": own})).await.status,
        200,
        "the signature proves that it is ours"
    );
    let forged = image.replace("/media/", "/media/A");
    assert_error(&server.submit(json!({"image": forged})).await, 400, "bad_field");
}
