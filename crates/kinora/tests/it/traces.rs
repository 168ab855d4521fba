//! What a collector is told of a request, by the program as a process; and that a program without traces says so.

use std::process::Command;

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_that_was_built_without_traces_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
    command.args(["serve", "--otlp-endpoint", "http://127.0.0.1:9", "--data-dir"]).arg(folder.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("built without traces") && said.contains("--features otlp"), "{said}");
}

#[test]
fn an_endpoint_that_is_no_web_address_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
    let output = command.args(["serve", "--otlp-endpoint", "localhost:4318"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("--otlp-endpoint"));
}

#[cfg(feature = "otlp")]
mod with_a_collector {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use crate::process::{Process, call, get};
    use crate::server::{BASE, MODEL, picture_base64};

    const PROMPT: &str = "a very private lighthouse";

    /// A request as it came.
    struct Sent {
        head: String,
        body: Vec<u8>,
    }

    /// Takes what is sent to it.
    struct Collector {
        url: String,
        taken: Arc<Mutex<Vec<Sent>>>,
    }

    impl Collector {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let taken = Arc::new(Mutex::new(Vec::new()));
            let takes = taken.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let request = take(stream.unwrap());
                    takes.lock().unwrap().push(request);
                }
            });
            Self { url, taken }
        }

        fn has_been_told(&self, bytes: &[u8]) -> bool {
            let taken = self.taken.lock().unwrap();
            taken.iter().any(|sent| sent.body.windows(bytes.len()).any(|window| window == bytes))
        }
    }

    fn take(mut stream: TcpStream) -> Sent {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..length]);
            let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(received[..end].to_vec()).unwrap().to_ascii_lowercase();
            let size = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if received.len() >= end + 4 + size.trim().parse::<usize>().unwrap() {
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
                return Sent { head, body: received.split_off(end + 4) };
            }
        }
    }

    #[test]
    fn a_collector_is_told_of_every_step_and_of_nothing_private() {
        let (collector, folder) = (Collector::start(), tempfile::tempdir().unwrap());
        let variables = [("KINORA_OTLP_ENDPOINT", collector.url.as_str())];
        let mut server = Process::start_with(folder.path(), &variables, None);
        let picture = picture_base64();
        let body = json!({"model": MODEL, "payload": {"image": picture, "prompt": PROMPT}}).to_string();
        let (status, accepted) =
            call(&server.address, &server.key, "POST", &format!("{BASE}/requests"), &body);
        assert_eq!(status, 200, "{accepted}");
        let id = accepted["request_id"].as_str().unwrap();
        let record = server.until(id, &["success"]);
        let url = record["outcome"]["video_url"].as_str().unwrap();
        let path = url.strip_prefix(&format!("http://{}", server.address)).unwrap();
        assert_eq!(get(&server.address, path).0, 200);
        assert_eq!(server.signal(rustix::process::Signal::TERM), Some(0), "what is left is sent at the end");

        let trace: uuid::Uuid = id.parse().unwrap();
        assert!(collector.has_been_told(trace.as_bytes()), "the trace has the request's number");
        let submit = format!("POST {BASE}/requests");
        let poll = format!("GET {BASE}/requests/{{request_id}}");
        for step in [
            &submit,
            &poll,
            "queued",
            "attempt",
            "encode (waited for)",
            "store",
            "kinora.request.id",
            "service.version",
        ] {
            assert!(collector.has_been_told(step.as_bytes()), "nothing of `{step}`");
        }
        let capability = path.split('/').nth(2).unwrap();
        for private in [PROMPT, &server.key, &picture[..40], capability, url] {
            assert!(!collector.has_been_told(private.as_bytes()), "told of `{private}`");
        }
        let taken = collector.taken.lock().unwrap();
        for Sent { head, .. } in taken.iter() {
            assert!(
                head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"),
                "{head}"
            );
        }
    }
}
