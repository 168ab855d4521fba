//! What Prometheus is told, and that the dashboard asks for nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::process::get;
use crate::server::{MODEL, TestServer, settings};

/// Every series that a query names, without the endings that histograms and counters have of themselves.
fn named(query: &str) -> BTreeSet<String> {
    query
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with("kinora_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboards_queries_name_what_is_served() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(settings(&folder).metrics_listen.is_none(), "nowhere unless asked for");
    let server = TestServer::start_on(folder, |settings| settings.metrics_listen = Some(port)).await;
    let id = server.accepted().await;
    assert_eq!(server.finished(&id).await["status"], "success");
    assert_eq!(server.submit(json!({"image": "http://127.0.0.1:9/none.png"})).await.status, 400);
    let asked = port.to_string();
    let (status, text) = tokio::task::spawn_blocking(move || get(&asked, "/metrics")).await.unwrap();
    assert_eq!(status, 200);
    let text = String::from_utf8(text).unwrap();
    let served: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/kinora.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(dashboard).unwrap()).unwrap();
    let mut asked_for = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let names = named(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{} asks for nothing of ours", panel["title"]);
            asked_for.extend(names);
        }
    }
    for name in &asked_for {
        assert!(served.contains(name.as_str()), "`{name}` is asked for but not served; there are {served:?}");
    }
    for name in served.iter().filter(|name| !name.ends_with("_bucket")) {
        let family = name.trim_end_matches("_count").trim_end_matches("_sum");
        let shown = asked_for.iter().any(|asked| asked.starts_with(family));
        assert!(shown, "`{name}` is served, but the dashboard does not show it");
    }
    let value = |series: &str| -> f64 {
        let line =
            text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}:\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // Other tests of this process count too.
    assert!(value("kinora_jobs_submitted_total") >= 1.0);
    assert!(value("kinora_frames_total{engine=\"pattern\"}") >= 120.0);
    assert!(value("kinora_attempts_ended_total{outcome=\"success\"}") >= 1.0);
    assert!(value("kinora_fetch_errors_total") >= 1.0);
    // Labels may stand in any order; the values are this server's, whatever other tests measure.
    let own = text.lines().find(|line| line.starts_with("kinora_own_workers{")).unwrap();
    assert!(own.contains(&format!("model=\"{MODEL}\"")) && own.contains("engine=\"pattern\""), "{own}");
    server.stop().await;
}
