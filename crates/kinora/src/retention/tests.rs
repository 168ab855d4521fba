use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::jobs::{InputRow, NewJob, StoreSettings, UploadRow};

const DAY_MS: i64 = 24 * 3600 * 1000;

struct Fixture {
    folder: tempfile::TempDir,
    retention: Retention,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let store = JobStore::open(&artifacts.folder().database(), StoreSettings::default()).await.unwrap();
        let keep = Duration::from_millis(10 * DAY_MS.unsigned_abs());
        Self { folder, retention: Retention { store, artifacts, keep } }
    }

    fn store(&self) -> &JobStore {
        &self.retention.store
    }

    /// A picture that was last handed out so many days ago.
    async fn picture(&self, shade: u8, days_ago: i64) -> ArtifactKey {
        let (sha256, version) = ([shade; 32], i64::from(shade));
        let key = ArtifactKey::of_input(sha256, version);
        self.retention.artifacts.put(key, Bytes::from_static(b"picture"), "image/png").await.unwrap();
        let used_at_ms = crate::clock::wall_ms() - days_ago * DAY_MS;
        let format = "png".to_owned();
        let row =
            InputRow { sha256, version, format, width_px: 300, height_px: 300, size_bytes: 7, used_at_ms };
        self.store().add_input(row).await.unwrap();
        key
    }

    /// A job with a clip, cancelled so many days ago.
    async fn job(&self, shade: u8, ended_days_ago: i64) -> Uuid {
        let id = Uuid::now_v7();
        let job = NewJob {
            id,
            org_id: "org".into(),
            user_id: "user".into(),
            model: "model".into(),
            payload: "{}".into(),
            input_sha256: [shade; 32],
            input_inline: true,
            seed: 1,
            priority: 0,
            now_ms: 1,
        };
        self.store().submit(job).await.unwrap().unwrap();
        let claim = crate::jobs::Claim {
            model: "model".into(),
            worker_id: "worker".into(),
            lease_ms: 60_000,
            now_ms: 2,
        };
        assert_eq!(self.store().claim(claim).await.unwrap().unwrap().id, id);
        let artifacts = &self.retention.artifacts;
        let key = ArtifactKey::Video { job: id, attempt: 1 };
        artifacts.commit(artifacts.stage().unwrap(), key, "video/mp4").await.unwrap();
        let ended_at_ms = crate::clock::wall_ms() - ended_days_ago * DAY_MS;
        self.store().cancel("org", id, ended_at_ms).await.unwrap().unwrap().unwrap();
        id
    }

    async fn has(&self, key: ArtifactKey) -> bool {
        self.retention.artifacts.find(key).await.unwrap().is_some()
    }

    async fn has_job(&self, id: Uuid) -> (bool, bool) {
        let clip = self.has(ArtifactKey::Video { job: id, attempt: 1 }).await;
        (self.store().get(id).await.unwrap().is_some(), clip)
    }
}

fn counts(jobs_count: u64, uploads_count: u64, inputs_count: u64) -> Expired {
    Expired { jobs_count, uploads_count, inputs_count }
}

#[tokio::test]
async fn what_ended_long_ago_goes_with_its_clip_and_its_picture_and_nothing_else_does() {
    let fixture = Fixture::new().await;
    let (alone, shared) = (fixture.picture(1, 30).await, fixture.picture(2, 30).await);
    let (unused, fresh) = (fixture.picture(3, 30).await, fixture.picture(4, 9).await);
    let old = fixture.job(1, 11).await;
    let old_of_shared = fixture.job(2, 11).await;
    let recent = fixture.job(2, 9).await;
    let retention = &fixture.retention;
    assert_eq!(retention.survey(true).await.unwrap(), counts(2, 0, 2));
    assert_eq!(fixture.has_job(old).await, (true, true), "a survey removes nothing");
    let removed = retention.remove(true).await.unwrap();
    assert_eq!(removed.rows, counts(2, 0, 2));
    assert_eq!(removed.files, Volume { files_count: 4, size_bytes: 14 }, "two empty clips and two pictures");
    for id in [old, old_of_shared] {
        assert_eq!(fixture.has_job(id).await, (false, false));
    }
    assert_eq!(fixture.has_job(recent).await, (true, true));
    assert!(!fixture.has(alone).await && !fixture.has(unused).await);
    assert!(fixture.has(shared).await && fixture.has(fresh).await);
    assert_eq!(retention.remove(true).await.unwrap().rows, counts(0, 0, 0));
}

#[tokio::test]
async fn a_picture_that_an_upload_names_stays_as_long_as_the_upload() {
    let fixture = Fixture::new().await;
    let picture = fixture.picture(1, 30).await;
    let (old, recent) = (Uuid::now_v7(), Uuid::now_v7());
    for (id, days_ago) in [(old, 11), (recent, 9)] {
        let granted_at_ms = crate::clock::wall_ms() - days_ago * DAY_MS;
        let org_id = "org".to_owned();
        let format = "png".to_owned();
        let row = UploadRow { id, org_id, format, expires_at_ms: granted_at_ms + 1, input_sha256: None };
        fixture.store().grant_upload(row, granted_at_ms).await.unwrap();
        fixture.store().fill_upload(id, [1; 32]).await.unwrap();
    }
    assert_eq!(fixture.retention.remove(true).await.unwrap().rows, counts(0, 1, 0));
    assert!(fixture.store().upload(old).await.unwrap().is_none());
    assert!(fixture.store().upload(recent).await.unwrap().is_some() && fixture.has(picture).await);
}

#[tokio::test]
async fn files_of_pictures_that_no_row_knows_go_once_they_are_old() {
    let fixture = Fixture::new().await;
    let (known, inputs) = (fixture.picture(1, 0).await, fixture.folder.path().join("inputs"));
    let stray = ArtifactKey::of_input([1; 32], 99);
    let young = ArtifactKey::of_input([2; 32], 0);
    for key in [stray, young] {
        fixture.retention.artifacts.put(key, Bytes::from_static(b"picture"), "image/png").await.unwrap();
    }
    std::fs::write(inputs.join("notes.txt"), b"not ours").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(11 * 24 * 3600);
    for key in [known.to_string(), stray.to_string(), "inputs/notes.txt".to_owned()] {
        let file = std::fs::File::options().write(true).open(fixture.folder.path().join(key)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    assert_eq!(
        fixture.retention.remove(false).await.unwrap().rows,
        counts(0, 0, 0),
        "only a listing finds them"
    );
    assert_eq!(fixture.retention.survey(true).await.unwrap(), counts(0, 0, 1));
    assert_eq!(fixture.retention.remove(true).await.unwrap().rows, counts(0, 0, 1));
    assert!(fixture.has(known).await && fixture.has(young).await && !fixture.has(stray).await);
    assert!(inputs.join("notes.txt").exists());
}

#[tokio::test]
async fn a_picture_that_is_stored_again_is_not_hit_by_a_removal_that_comes_late() {
    let fixture = Fixture::new().await;
    let before = fixture.picture(1, 30).await;
    let forgotten = fixture.store().forget_inputs(crate::clock::wall_ms(), 10).await.unwrap();
    let version = ArtifactKey::new_version();
    let again = ArtifactKey::of_input([1; 32], version);
    fixture.retention.artifacts.put(again, Bytes::from_static(b"picture"), "image/png").await.unwrap();
    let row = InputRow { version, used_at_ms: crate::clock::wall_ms(), ..forgotten[0].clone() };
    assert_eq!(fixture.store().add_input(row.clone()).await.unwrap(), row);
    fixture.retention.artifacts.remove(ArtifactKey::of_input([1; 32], forgotten[0].version)).await.unwrap();
    assert!(!fixture.has(before).await && fixture.has(again).await);
}

#[tokio::test]
async fn files_that_do_not_go_keep_their_own_request_and_nothing_else() {
    let fixture = Fixture::new().await;
    fixture.picture(1, 30).await;
    let unused = fixture.picture(2, 30).await;
    let (stuck, other) = (fixture.job(1, 12).await, fixture.job(1, 11).await);
    let files = fixture.folder.path().join("outputs").join(stuck.to_string());
    std::fs::remove_dir_all(&files).unwrap();
    std::fs::write(&files, b"not a folder").unwrap();
    assert_eq!(fixture.retention.remove(true).await.unwrap().rows, counts(1, 0, 1));
    assert!(fixture.store().get(stuck).await.unwrap().is_some());
    assert_eq!(fixture.has_job(other).await, (false, false));
    assert!(!fixture.has(unused).await);
    std::fs::remove_file(&files).unwrap();
    assert_eq!(fixture.retention.remove(true).await.unwrap().rows, counts(1, 0, 1), "the next look finds it");
}

#[tokio::test]
async fn a_store_that_knows_no_picture_removes_none() {
    let fixture = Fixture::new().await;
    let key = ArtifactKey::of_input([1; 32], 99);
    fixture.retention.artifacts.put(key, Bytes::from_static(b"picture"), "image/png").await.unwrap();
    let file =
        std::fs::File::options().write(true).open(fixture.folder.path().join(key.to_string())).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(11 * 24 * 3600)).unwrap();
    assert_eq!(fixture.retention.survey(true).await.unwrap(), counts(0, 0, 0));
    assert_eq!(fixture.retention.remove(true).await.unwrap().rows, counts(0, 0, 0));
    assert!(fixture.has(key).await, "it may be all that is left of a lost database");
}
