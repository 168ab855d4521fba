//! What callers get wrong, or mean badly: each case with its status and what its sentence says; and what sits just
//! inside of a limit, which is accepted.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ExtendedColorType, ImageEncoder as _, codecs};
use kinora::fetch::FetchPolicy;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{BASE, MODEL, TestServer};

const MIB: usize = 1024 * 1024;

fn rgb(width_px: u32, height_px: u32) -> Vec<u8> {
    (0..width_px * height_px * 3).map(|at| (at / 3 % width_px) as u8).collect()
}

fn png(width_px: u32, height_px: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(&rgb(width_px, height_px), width_px, height_px, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn jpeg(width_px: u32, height_px: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 80);
    encoder.write_image(&rgb(width_px, height_px), width_px, height_px, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// A JPEG whose header promises another size.
fn jpeg_of_claimed_size(width_px: u16, height_px: u16) -> Vec<u8> {
    let mut bytes = jpeg(320, 320);
    let frame = bytes.windows(4).position(|window| window == [0xff, 0xc0, 0, 17]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height_px.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width_px.to_be_bytes());
    bytes
}

/// A picture followed by as many bytes as make it `size_bytes` long.
fn padded(mut picture: Vec<u8>, size_bytes: usize) -> Vec<u8> {
    picture.resize(size_bytes, 0);
    picture
}

fn base64(bytes: impl AsRef<[u8]>) -> Value {
    STANDARD.encode(bytes).into()
}

/// A case: what it is, the body, the status, and a part of the sentence (empty where it is accepted).
struct Case {
    name: String,
    body: Vec<u8>,
    status: u16,
    says: &'static str,
}

fn raw(name: &str, body: impl Into<Vec<u8>>, status: u16, says: &'static str) -> Case {
    Case { name: name.to_owned(), body: body.into(), status, says }
}

fn body(name: &str, body: &Value, status: u16, says: &'static str) -> Case {
    raw(name, body.to_string(), status, says)
}

/// A submission whose picture is good and whose field `name` is `value`.
fn field(name: &str, value: &Value, says: &'static str) -> Case {
    let mut payload = json!({"image": base64(png(300, 300))});
    payload[name] = value.clone();
    let shown: String = value.to_string().chars().take(60).collect();
    let status = if says.is_empty() { 200 } else { 400 };
    body(&format!("{name} = {shown}"), &json!({"model": MODEL, "payload": payload}), status, says)
}

fn image(name: &str, image: &Value, says: &'static str) -> Case {
    let status = if says.is_empty() { 200 } else { 400 };
    body(&format!("image: {name}"), &json!({"model": MODEL, "payload": {"image": image}}), status, says)
}

fn bodies() -> Vec<Case> {
    let good = json!({"image": base64(png(300, 300))});
    vec![
        raw("nothing", "", 400, "not valid JSON"),
        raw("a word", "hello", 400, "not valid JSON"),
        raw("JSON that ends too early", "{\"model\": \"K", 400, "not valid JSON"),
        raw("bytes that are no text", b"{\"model\": \"\xff\xfe\"}", 400, "not valid JSON"),
        raw("a list", "[]", 400, "must be an object"),
        raw("null", "null", 400, "must be an object"),
        raw("lists in lists in lists", "[".repeat(100_000), 400, "not valid JSON"),
        raw("two values", "{} {}", 400, "not valid JSON"),
        raw("a number beyond all floats", "{\"model\": 1e999}", 400, ""),
        raw("17 MiB", vec![b' '; 17 * MIB], 413, "at most 16777216 bytes"),
        body("no model", &json!({"payload": good}), 400, "model is required"),
        body("model null", &json!({"model": null, "payload": good}), 400, "model is required"),
        body("model a number", &json!({"model": 1, "payload": good}), 400, "model must be a string"),
        body("model empty", &json!({"model": " ", "payload": good}), 400, "model is empty"),
        body("model unknown", &json!({"model": "Kling-9", "payload": good}), 404, "no model `Kling-9`"),
        body("model unknown, payload empty", &json!({"model": "Kling-9", "payload": {}}), 404, "no model"),
        body("model in other letters", &json!({"model": MODEL.to_uppercase(), "payload": good}), 200, ""),
        body("no payload", &json!({"model": MODEL}), 400, "payload"),
        body("payload null", &json!({"model": MODEL, "payload": null}), 400, "payload"),
        body("payload a string", &json!({"model": MODEL, "payload": "{}"}), 400, "payload must be an object"),
        body("payload a list", &json!({"model": MODEL, "payload": []}), 400, "payload must be an object"),
        body(
            "payload without an image",
            &json!({"model": MODEL, "payload": {"seed": 1}}),
            400,
            "image is required",
        ),
        body("payload empty", &json!({"model": MODEL, "payload": {}}), 400, "payload is empty"),
    ]
}

fn fields() -> Vec<Case> {
    let prompt = |chars: usize| Value::from("é".repeat(chars));
    let mut cases = Vec::new();
    for name in ["prompt", "negative_prompt"] {
        let (kind, length) = match name {
            "prompt" => ("prompt must be a string", "prompt must be at most 2500 characters"),
            _ => ("negative_prompt must be a string", "negative_prompt must be at most 2500 characters"),
        };
        cases.extend([
            field(name, &json!(7), kind),
            field(name, &json!(["a"]), kind),
            field(name, &json!({}), kind),
            field(name, &json!(true), kind),
            field(name, &prompt(2501), length),
            field(name, &prompt(2500), ""),
            field(name, &json!(""), ""),
            field(name, &json!(null), ""),
        ]);
    }
    let duration = "duration must be \"5\" or \"10\"";
    for wrong in
        [json!("6"), json!(6), json!(5.5), json!("five"), json!(""), json!(-5), json!(true), json!(["5"])]
    {
        cases.push(field("duration", &wrong, duration));
    }
    for wrong in [json!(4_294_967_301u64), json!("5s"), json!("5.0"), json!({}), json!("٥")] {
        cases.push(field("duration", &wrong, duration));
    }
    let scale = "cfg_scale must be a number from 0 to 1";
    for wrong in
        [json!(-0.1), json!(1.1), json!("abc"), json!(true), json!("NaN"), json!("inf"), json!([]), json!("")]
    {
        cases.push(field("cfg_scale", &wrong, scale));
    }
    let seed = "seed must be an integer from 0 to 9007199254740991";
    for wrong in [json!(-1), json!(1.5), json!("7"), json!(9_007_199_254_740_992u64), json!(true)] {
        cases.push(field("seed", &wrong, seed));
    }
    for (name, right) in [
        ("duration", json!("5")),
        ("duration", json!(10)),
        ("duration", json!(null)),
        ("cfg_scale", json!(0)),
        ("cfg_scale", json!(1)),
        ("cfg_scale", json!("0.5")),
        ("cfg_scale", json!(null)),
        ("seed", json!(0)),
        ("seed", json!(9_007_199_254_740_991u64)),
        ("seed", json!(null)),
        ("unheard_of", json!({"a": [1]})),
    ] {
        cases.push(field(name, &right, ""));
    }
    cases
}

fn not_pictures() -> Vec<Case> {
    let uri = |head: &str| json!(format!("{head}{}", STANDARD.encode(png(300, 300))));
    vec![
        image("null", &json!(null), "image is required"),
        image("a number", &json!(7), "image must be a string"),
        image("a list", &json!(["a"]), "image must be a string"),
        image("an object", &json!({"url": "x"}), "image must be a string"),
        image("empty", &json!(""), "image is empty"),
        image("blank", &json!(" \n"), "image is empty"),
        image("words", &json!("not a picture!"), "valid Base64"),
        image("Base64 of words", &base64("hello, this is a text"), "of an unknown format"),
        image("a GIF", &base64(b"GIF89a\x01\0\x01\0"), "a GIF file; a JPEG or PNG"),
        image("a WebP", &base64(b"RIFF\x24\0\0\0WEBPVP8 "), "a WebP file; a JPEG or PNG"),
        image("a BMP", &base64(b"BM\x36\0\0\0"), "a BMP file"),
        image("a PDF", &base64("%PDF-1.7"), "a PDF file"),
        image("an SVG", &base64("<svg xmlns='http://www.w3.org/2000/svg'/>"), "an SVG file"),
        image(
            "a GIF that says PNG",
            &json!(format!("data:image/png;base64,{}", STANDARD.encode("GIF89a"))),
            "a GIF",
        ),
        image("a data URI of text", &uri("data:text/plain;base64,"), "data URI must begin with"),
        image("a data URI that is not Base64", &json!("data:image/png,%89PNG"), "data URI must begin with"),
        image("a data URI without data", &json!("data:image/png;base64"), "data URI must begin with"),
        image("an empty data URI", &json!("data:image/png;base64,"), "image is empty"),
        image("a PNG that says JPEG", &uri("data:image/jpeg;base64,"), ""),
        image("a data URI in capitals", &uri("DATA:IMAGE/PNG;BASE64,"), ""),
    ]
}

fn pictures() -> Vec<Case> {
    let (whole_jpeg, whole_png) = (jpeg(320, 320), png(320, 320));
    let cut = |bytes: &[u8]| base64(&bytes[..bytes.len() / 2]);
    let mut png_bomb = whole_png.clone();
    png_bomb[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let mut broken = whole_png.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    vec![
        image("a cut JPEG", &cut(&whole_jpeg), "JPEG file that ends too early"),
        image("a cut PNG", &cut(&whole_png), "PNG file that ends too early"),
        image("a JPEG's first bytes", &base64(b"\xff\xd8\xff\xe0"), "ends too early"),
        image("a PNG's first bytes", &base64(b"\x89PNG\r\n\x1a\n"), "ends too early"),
        image("a PNG with a wrong byte", &base64(broken), "cannot be decoded"),
        image("a PNG bomb", &base64(png_bomb), "image is"),
        image("a JPEG bomb", &base64(jpeg_of_claimed_size(65_000, 65_000)), "at most 50000000 pixels"),
        image("a JPEG of no height", &base64(jpeg_of_claimed_size(320, 0)), "image is"),
        image("299 wide", &base64(png(299, 400)), "299x400 pixels; both sides must be at least 300"),
        image("299 high", &base64(jpeg(400, 299)), "400x299 pixels; both sides must be at least 300"),
        image("one pixel", &base64(png(1, 1)), "1x1 pixels; both sides"),
        image("too wide", &base64(png(751, 300)), "between 1:2.5 and 2.5:1"),
        image("too high", &base64(png(300, 751)), "between 1:2.5 and 2.5:1"),
        image("a byte too many", &base64(padded(jpeg(320, 320), 10 * MIB + 1)), "10485760"),
        image("300 x 300", &base64(png(300, 300)), ""),
        image("as wide as allowed", &base64(png(750, 300)), ""),
        image("as high as allowed", &base64(jpeg(300, 750)), ""),
        image("10 MB to the byte", &base64(padded(jpeg(320, 320), 10 * MIB)), ""),
    ]
}

/// URLs that are refused without a connection. Nothing but 127.0.0.1 is allowed beside the public addresses.
fn forbidden_urls() -> Vec<Case> {
    let not_public = "not public";
    [
        ("http://127.0.0.2/a.png", not_public),
        ("http://2130706434/a.png", not_public),
        ("http://0x7f.0.0.2/a.png", not_public),
        ("http://0177.0.0.2/a.png", not_public),
        ("http://[::1]/a.png", not_public),
        ("http://[::ffff:127.0.0.1]/a.png", not_public),
        ("http://[64:ff9b::7f00:1]/a.png", not_public),
        ("http://[fe80::1]/a.png", not_public),
        ("http://[fd00::1]/a.png", not_public),
        ("http://0.0.0.0:8080/a.png", not_public),
        ("http://10.0.0.1/a.png", not_public),
        ("http://172.16.0.1/a.png", not_public),
        ("http://192.168.1.1/a.png", not_public),
        ("http://100.64.0.1/a.png", not_public),
        ("http://169.254.169.254/latest/meta-data/", not_public),
        ("http://224.0.0.1/a.png", not_public),
        ("http://255.255.255.255/a.png", not_public),
        ("http://127.0.0.1:22/a.png", "must use port 80, 443"),
        ("http://me:secret@127.0.0.1:9999/a.png", "user name or password"),
        ("http://", "cannot be read"),
        ("http://[::1/a.png", "cannot be read"),
        ("http://999.1.1.1/a.png", "cannot be read"),
        ("http://exa mple/a.png", "cannot be read"),
        ("ftp://example.com/a.png", "begins with http"),
        ("file:///etc/passwd", "begins with http"),
        ("javascript:alert(1)", "begins with http"),
    ]
    .into_iter()
    .map(|(url, says)| image(url, &json!(url), says))
    .collect()
}

/// A host on 127.0.0.1 that behaves as its paths say.
async fn bad_host() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(behave(stream));
        }
    });
    (base, task)
}

async fn behave(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let moved =
        |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let answer = match path {
        "/good.png" => found(&png(300, 300)),
        "/gif.png" => found(b"GIF89a\x01\0\x01\0"),
        "/page.png" => found(b"<!DOCTYPE html><html></html>"),
        "/empty.png" => found(b""),
        "/small.png" => found(&png(200, 200)),
        "/to-good" => moved("/good.png"),
        "/to-neighbour" => moved("http://127.0.0.2:9999/a.png"),
        "/to-metadata" => moved("http://169.254.169.254/"),
        "/to-file" => moved("file:///etc/passwd"),
        "/loop" => moved("/loop"),
        "/large" => b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        "/noise" => b"220 mail.example ESMTP\r\n".to_vec(),
        "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec(),
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[7; 65536]).await?;
            }
        }
        "/slow" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

fn reached_urls(base: &str) -> Vec<Case> {
    [
        ("/good.png", ""),
        ("/to-good", ""),
        ("/gif.png", "a GIF file"),
        ("/page.png", "a web page"),
        ("/empty.png", "image is empty"),
        ("/small.png", "200x200 pixels"),
        ("/missing.png", "answers 404"),
        ("/to-neighbour", "not public"),
        ("/to-metadata", "not public"),
        ("/to-file", "must begin with http"),
        ("/loop", "redirects more than 5 times"),
        ("/large", "more than 10485760 bytes"),
        ("/endless", "more than 10485760 bytes"),
        ("/slow", "longer than 5 s"),
        ("/noise", "does not speak HTTP"),
        ("/cut", "broke off"),
    ]
    .into_iter()
    .map(|(path, says)| image(path, &json!(format!("{base}{path}")), says))
    .collect()
}

async fn idle_server() -> TestServer {
    TestServer::start_with(|settings| {
        settings.engine = None;
        settings.fetch = FetchPolicy {
            allow: vec!["127.0.0.1/32".parse().unwrap()],
            total_timeout: Duration::from_secs(5),
            ..FetchPolicy::default()
        };
    })
    .await
}

#[tokio::test]
async fn every_wrong_request_is_told_what_is_wrong_and_queues_nothing() {
    let (base, host) = bad_host().await;
    let server = idle_server().await;
    let groups = [bodies(), fields(), not_pictures(), pictures(), forbidden_urls(), reached_urls(&base)];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    assert!(cases.len() > 150, "{}", cases.len());
    let mut accepted_count = 0;
    let mut faults = Vec::new();
    for case in cases {
        let answer = server.call("POST", &format!("{BASE}/requests"), case.body).await;
        let sentence = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        let is_right = match answer.status {
            200 => sentence.is_empty() && answer.json()["status"] == "queued",
            _ => !sentence.is_empty() && sentence.contains(case.says) && sentence.len() < 300,
        };
        if answer.status != case.status || !is_right {
            faults.push(format!(
                "{}: {} {sentence}, not {} {}",
                case.name, answer.status, case.status, case.says
            ));
        }
        accepted_count += u64::from(answer.status == 200);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(server.get("/requests").await.json()["total"], accepted_count);
    host.abort();
    server.stop().await;
}

/// JSON of any shape, with what the service knows mixed in.
fn any_json() -> impl Strategy<Value = Value> {
    let known = prop_oneof![
        Just(json!(MODEL)),
        Just(json!("5")),
        Just(base64(png(300, 300))),
        Just(base64(&png(300, 300)[..200])),
        Just(json!("data:image/png;base64,")),
        Just(json!("http://127.0.0.2/a.png")),
        Just(json!("http://[::ffff:10.0.0.1]/")),
    ];
    let leaf = prop_oneof![
        2 => known,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        2 => any::<String>().prop_map(Value::from),
        1 => "[A-Za-z0-9+/]{0,40}={0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A submission in which any field may hold anything.
fn any_submission() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 7] = ["image", "prompt", "negative_prompt", "duration", "cfg_scale", "seed", "other"];
    let payload = proptest::collection::vec((proptest::sample::select(&NAMES[..]), any_json()), 0..7)
        .prop_map(|fields| {
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>()
        });
    prop_oneof![
        6 => (prop_oneof![4 => Just(json!(MODEL)), 1 => any_json()], payload)
            .prop_map(|(model, payload)| json!({"model": model, "payload": payload})),
        1 => (Just(json!(MODEL)), any_json()).prop_map(|(model, payload)| json!({"model": model, "payload": payload})),
        1 => any_json(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_json_makes_the_server_fail() {
    let server = idle_server().await;
    let handle = tokio::runtime::Handle::current();
    let path = format!("{BASE}/requests");
    tokio::task::block_in_place(|| {
        TestRunner::new(Config::default())
            .run(&any_submission(), |submission| {
                let answer = handle.block_on(server.call("POST", &path, submission.to_string()));
                let body = answer.json();
                match answer.status {
                    200 => prop_assert_eq!(&body["status"], "queued"),
                    400 | 404 => prop_assert!(body["error"].as_str().is_some_and(|error| !error.is_empty())),
                    429 => prop_assert!(!answer.header("retry-after").is_empty()),
                    status => prop_assert!(false, "{}: {}", status, body),
                }
                Ok(())
            })
            .unwrap();
    });
    server.stop().await;
}
