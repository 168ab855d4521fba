//! A request's body: whatever it is, an answer; and what is accepted keeps its meaning when it is stored and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use submission::{ImageSource, Submission};

// The product crate would bring a database and a web server along; this module needs neither.
#[allow(dead_code, reason = "one of its two users is elsewhere")]
#[path = "../../crates/kinora/src/submission.rs"]
mod submission;

fuzz_target!(|body: &[u8]| {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else { return };
    // As in a request, or alone, so that the fuzzer need not find the envelope first.
    let payload = match object.remove("payload") {
        Some(Value::Object(payload)) => payload,
        Some(_) => return,
        None => object,
    };
    let submission = match Submission::parse(&payload) {
        Ok(submission) => submission,
        Err(error) => return assert!(error.message.contains(error.field) && error.message.len() < 400, "{error}"),
    };
    let stored = submission.to_payload();
    let spec = Submission::spec(&stored, 7).expect("what was accepted can be carried out");
    assert_eq!(spec.prompt, submission.prompt.clone().unwrap_or_default());
    assert!((0.0..=1.0).contains(&spec.cfg_scale));
    if matches!(submission.image, ImageSource::Url(_)) {
        assert_eq!(Submission::parse(&stored).as_ref(), Ok(&submission), "stored and read again");
    }
});
