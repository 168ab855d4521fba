//! The command line as scripts meet it: output, exit codes, files.

use std::path::Path;
use std::process::{Command, Output};

use crate::server::picture_bytes;

pub fn kinora(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kinora"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder_with_picture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    folder
}

#[test]
fn animate_writes_the_clip_beside_the_picture_and_says_so() {
    let folder = folder_with_picture();
    let output = kinora(folder.path(), &["animate", "photo.jpg", "--engine", "pattern", "--seed", "7"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "photo.mp4\n");
    assert!(text(&output.stderr).contains("seed 7"), "{output:?}");
    let clip = std::fs::read(folder.path().join("photo.mp4")).unwrap();
    assert_eq!(&clip[4..8], b"ftyp");
    let again = kinora(
        folder.path(),
        &["animate", "photo.jpg", "--engine", "pattern", "--seed", "7", "-o", "b.mp4", "-q"],
    );
    assert_eq!((again.stdout.len(), again.stderr.len()), (0, 0), "quiet says nothing");
    assert_eq!(
        std::fs::read(folder.path().join("b.mp4")).unwrap(),
        clip,
        "the same seed gives the same file"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left behind");
}

#[test]
fn animate_prints_one_machine_readable_result() {
    let folder = folder_with_picture();
    let output =
        kinora(folder.path(), &["animate", "photo.jpg", "--engine", "pattern", "--json", "--duration", "10"]);
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&result["frames"], &result["duration"], &result["output"]),
        (&240.into(), &"10".into(), &"photo.mp4".into())
    );
}

#[test]
fn the_embedded_engine_makes_a_clip_of_the_pictures_own_ratio() {
    let folder = folder_with_picture();
    let output = kinora(folder.path(), &["animate", "photo.jpg", "-p", "slow push in", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let side = |name: &str| result[name].as_f64().unwrap();
    assert!((side("width") / side("height") - 320.0 / 300.0).abs() < 0.03, "{result}");
    assert!((side("width") * side("height") / 921_600.0 - 1.0).abs() < 0.05, "{result}");
    assert_eq!(
        (&result["frames"], &result["fps"], &result["engine"]),
        (&120.into(), &24.into(), &"motion".into())
    );
}

#[test]
fn explain_prints_the_plan_and_renders_nothing() {
    let folder = folder_with_picture();
    let prompt = "slow push in, a zorbl, no shake";
    let output = kinora(folder.path(), &["animate", "photo.jpg", "-p", prompt, "--explain"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        said.contains("push in") && said.contains("not_understood:\n") && said.contains("- zorbl"),
        "{said}"
    );
    let json = kinora(folder.path(), &["animate", "photo.jpg", "-p", prompt, "--explain", "--json"]);
    let plan: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(plan["engine"], "motion");
    assert!(!folder.path().join("photo.mp4").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_no_file_and_has_its_exit_code() {
    use rustix::process::{Pid, Signal, kill_process};
    for signal in [Signal::INT, Signal::TERM] {
        let folder = folder_with_picture();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kinora"))
            .args(["animate", "photo.jpg", "--duration", "10", "-p", "push in"])
            .current_dir(folder.path())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let started = std::time::Instant::now();
        while std::fs::read_dir(folder.path()).unwrap().count() < 2 {
            assert!(started.elapsed().as_secs() < 60, "the clip is never started");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the picture stays");
    }
}

#[test]
fn failures_have_their_exit_codes_and_say_what_is_wrong() {
    let folder = folder_with_picture();
    std::fs::write(folder.path().join("text.jpg"), "no picture").unwrap();
    let long = "x".repeat(2501);
    let cases: [(&[&str], i32, &str); 16] = [
        (&["animate", "missing.jpg"], 3, "missing.jpg"),
        (&["animate", "text.jpg"], 3, "JPEG"),
        (&["animate", "."], 3, "folder"),
        (&["animate", "photo.jpg", "-p", &long], 3, "2500"),
        (&["animate", "http://127.0.0.1:9/a.jpg"], 3, "image"),
        (&["animate", "photo.jpg", "--cfg-scale", "2"], 2, "0 to 1"),
        (&["animate", "photo.jpg", "--duration", "7"], 2, "5, 10"),
        (&["animate", "photo.jpg", "--seed", "-1"], 2, "--seed"),
        (&["animate", "photo.jpg", "-o", "no/such/folder/a.mp4"], 1, "no/such/folder"),
        (&["animate", "photo.jpg", "-o", "."], 1, "--output .: this is a folder"),
        (&["animate", "photo.jpg", "-o", "./photo.jpg"], 1, "this is the picture itself"),
        (&["animate", "photo.jpg", "--engine", "pattern", "--explain", "--json"], 2, "--explain"),
        (
            &["animate", "photo.jpg", "--noise", "n", "--duration", "10"],
            2,
            "--noise: a file of noise starts one",
        ),
        (&["animate"], 2, "IMAGE"),
        (&["annimate"], 2, "animate"),
        (&["keys", "revoke", "none", "--data-dir", "data"], 3, "none"),
    ];
    for (arguments, code, part) in cases {
        let output = kinora(folder.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part) && said.contains("error"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!folder.path().join("photo.mp4").exists());
    assert_eq!(std::fs::read(folder.path().join("photo.jpg")).unwrap(), picture_bytes());
}

#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_never_replaced_by_a_clip() {
    let folder = folder_with_picture();
    let socket = folder.path().join("socket.mp4");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let output = kinora(folder.path(), &["animate", "photo.jpg", "-o", "socket.mp4"]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("no plain file"), "{said}");
    assert!(!std::fs::metadata(&socket).unwrap().is_file());
}

#[test]
fn settings_of_another_engine_are_remarked() {
    let folder = folder_with_picture();
    let flags = ["--engine", "pattern", "--model", "somewhere", "--steps", "4", "--noise", "n.safetensors"];
    let run = |more: &[&str]| kinora(folder.path(), &[&["animate", "photo.jpg"], &flags[..], more].concat());
    let output = run(&[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("--model, --steps, --noise") && said.contains("--engine wan"), "{said}");
    assert!(run(&["-q"]).stderr.is_empty());
}

#[test]
fn a_result_that_nobody_reads_to_its_end_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 4] =
        [&["models", "list"], &["models", "info", "wan2.2-ti2v-5b"], &["doctor"], &["doctor", "--json"]];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
        let command = command.args(arguments).current_dir(folder.path()).env_clear().stdout(writer);
        let output =
            command.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn settings_come_from_flag_then_variable_then_file() {
    let folder = folder_with_picture();
    let file = "[animate]\nseed = 1\nengine = 'pattern'\njson = true\nduration = 10\n";
    std::fs::write(folder.path().join("k.toml"), file).unwrap();
    let seed = |arguments: &[&str], variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
        command
            .args(["animate", "photo.jpg", "--config", "k.toml"])
            .args(arguments)
            .current_dir(folder.path());
        let output = command.env_clear().envs(variable.map(|seed| ("KINORA_SEED", seed))).output().unwrap();
        let result: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e} {output:?}"));
        assert_eq!(result["duration"], "10");
        result["seed"].as_u64().unwrap()
    };
    assert_eq!(seed(&[], None), 1);
    assert_eq!(seed(&[], Some("2")), 2);
    assert_eq!(seed(&["--seed", "3"], Some("2")), 3);
    std::fs::write(folder.path().join("k.toml"), "[animate]\nsede = 1\n").unwrap();
    let output = kinora(folder.path(), &["animate", "photo.jpg", "--config", "k.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `animate.seed`?"), "{output:?}");
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let created =
        kinora(folder.path(), &["keys", "create", "--org", "acme", "--user", "ann", "--data-dir", "d"]);
    let key = text(&created.stdout);
    assert!(key.starts_with("kin_") && key.ends_with('\n') && key.lines().count() == 1, "{created:?}");
    let list = || {
        let output = kinora(folder.path(), &["keys", "list", "--json", "--data-dir", "d"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let row = list()[0].clone();
    assert_eq!(
        (&row["org_id"], &row["user_id"], &row["revoked_at"]),
        (&"acme".into(), &"ann".into(), &serde_json::Value::Null)
    );
    let table = text(&kinora(folder.path(), &["keys", "list", "--data-dir", "d"]).stdout);
    assert!(table.contains("acme") && !table.contains(key.trim()), "{table}");
    let revoked = kinora(folder.path(), &["keys", "revoke", row["id"].as_str().unwrap(), "--data-dir", "d"]);
    assert_eq!(revoked.status.code(), Some(0), "{revoked:?}");
    assert!(list()[0]["revoked_at"].is_i64());
}
