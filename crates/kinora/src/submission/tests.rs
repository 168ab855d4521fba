#![expect(clippy::needless_pass_by_value, reason = "json! literals read best as values")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(payload: Value) -> Result<Submission, FieldError> {
    Submission::parse(payload.as_object().unwrap())
}

fn refused(payload: Value) -> (&'static str, String) {
    let error = parse(payload).unwrap_err();
    (error.field, error.message)
}

#[test]
fn the_lenient_forms_mean_the_same() {
    let plain = parse(json!({"image": "AAECAw==", "duration": "10", "cfg_scale": 0.3})).unwrap();
    let lenient = [
        json!({"image": "AAEC\r\nAw==\n", "duration": 10, "cfg_scale": "0.3"}),
        json!({"image": "data:image/png;base64,AAECAw==", "duration": 10.0, "cfg_scale": " 0.3 "}),
        json!({"image": "DATA:image/jpeg;charset=x;base64,AAECAw", "duration": "10", "cfg_scale": 0.3}),
        json!({"image": "AAECAw==", "duration": "10", "cfg_scale": 0.3, "seed": null, "prompt": null, "other": {}}),
    ];
    for payload in lenient {
        assert_eq!(parse(payload.clone()).unwrap(), plain, "{payload}");
    }
    for url_safe in ["_-8=", "_-8", "_-\n8=\n"] {
        let submission = parse(json!({"image": url_safe})).unwrap();
        assert_eq!(submission.image, ImageSource::Inline(vec![0xff, 0xef]), "{url_safe:?}");
    }
}

#[test]
fn what_is_answered_is_what_was_given() {
    let submission =
        parse(json!({"image": "https://example.com/a.jpg?b", "cfg_scale": 0.3, "duration": 5})).unwrap();
    let payload = Value::Object(submission.to_payload());
    assert_eq!(payload, json!({"image": "https://example.com/a.jpg?b", "cfg_scale": 0.3, "duration": "5"}));
    let inline = parse(json!({"image": "AAAA", "seed": 9007199254740991_u64, "prompt": "x"})).unwrap();
    assert_eq!(Value::Object(inline.to_payload()), json!({"seed": 9007199254740991_u64, "prompt": "x"}));
}

#[test]
fn defaults_are_the_contracts() {
    let payload = parse(json!({"image": "AAAA"})).unwrap().to_payload();
    let spec = Submission::spec(&payload, 7).unwrap();
    assert_eq!((spec.prompt.as_str(), spec.negative_prompt.as_str()), ("", ""));
    assert_eq!((spec.cfg_scale, spec.duration.seconds(), spec.seed), (0.5, 5, 7));
}

#[test]
fn each_refusal_names_the_field_and_the_limit() {
    let cases = [
        (json!({"prompt": "x"}), "image", "required"),
        (json!({"image": null}), "image", "required"),
        (json!({"image": 5}), "image", "string"),
        (json!({"image": "  "}), "image", "empty"),
        (json!({"image": "not base64!"}), "image", "Base64"),
        (json!({"image": "ftp://example.com/a.jpg"}), "image", "http://"),
        (json!({"image": format!("AAAA{}:", "A".repeat(100))}), "image", "Base64"),
        (json!({"image": "é:"}), "image", "http://"),
        (json!({"image": "file:///etc/passwd"}), "image", "http://"),
        (json!({"image": "http://"}), "image", "URL"),
        (json!({"image": "data:text/plain;base64,AAAA"}), "image", "data URI"),
        (json!({"image": "data:image/png,AAAA"}), "image", "data URI"),
        (json!({"image": format!("https://example.com/{}", "a".repeat(9000))}), "image", "8192"),
        (json!({"image": "A".repeat(14_000_000)}), "image", "10485760"),
        (json!({"image": "A".repeat(60_000_000)}), "image", "10485760"),
        (json!({"image": "AAAA", "prompt": 1}), "prompt", "string"),
        (json!({"image": "AAAA", "prompt": "é".repeat(2501)}), "prompt", "2500"),
        (json!({"image": "AAAA", "negative_prompt": ["x"]}), "negative_prompt", "string"),
        (json!({"image": "AAAA", "negative_prompt": "x".repeat(2501)}), "negative_prompt", "2500"),
        (json!({"image": "AAAA", "duration": "7"}), "duration", "\"5\" or \"10\""),
        (json!({"image": "AAAA", "duration": 5.5}), "duration", "\"5\" or \"10\""),
        (json!({"image": "AAAA", "duration": true}), "duration", "\"5\" or \"10\""),
        (json!({"image": "AAAA", "cfg_scale": 1.01}), "cfg_scale", "0 to 1"),
        (json!({"image": "AAAA", "cfg_scale": -0.1}), "cfg_scale", "0 to 1"),
        (json!({"image": "AAAA", "cfg_scale": "much"}), "cfg_scale", "0 to 1"),
        (json!({"image": "AAAA", "cfg_scale": "NaN"}), "cfg_scale", "0 to 1"),
        (json!({"image": "AAAA", "seed": -1}), "seed", "9007199254740991"),
        (json!({"image": "AAAA", "seed": 9007199254740992_u64}), "seed", "9007199254740991"),
        (json!({"image": "AAAA", "seed": 1.5}), "seed", "integer"),
        (json!({"image": "AAAA", "seed": "7"}), "seed", "integer"),
    ];
    for (payload, field, part) in cases {
        let (wrong, message) = refused(payload);
        assert_eq!(wrong, field, "{message}");
        assert!(message.contains(part) && message.contains(field), "{message}");
    }
}

#[test]
fn limits_are_inclusive() {
    parse(json!({"image": "AAAA", "prompt": "é".repeat(2500), "negative_prompt": "x".repeat(2500)})).unwrap();
    parse(json!({"image": "AAAA", "cfg_scale": 0, "seed": 0})).unwrap();
    parse(json!({"image": "AAAA", "cfg_scale": 1})).unwrap();
    let largest = base64_simd::STANDARD.encode_to_string(vec![0; 10 << 20]);
    parse(json!({"image": largest})).unwrap();
}

proptest! {
    #[test]
    fn an_accepted_payload_reads_the_same_from_the_store(scale in 0.0..=1.0f32, seed in 0..=GenerateSpec::SEED_MAX, prompt in ".{0,40}") {
        let submission = parse(json!({"image": "AAAA", "cfg_scale": scale, "seed": seed, "prompt": prompt})).unwrap();
        let spec = Submission::spec(&submission.to_payload(), seed).unwrap();
        prop_assert_eq!(spec.cfg_scale, scale);
        prop_assert_eq!(spec.prompt, prompt);
    }
}
