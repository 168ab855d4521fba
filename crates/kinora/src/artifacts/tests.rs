use std::fs;

use super::*;

fn staging_count(root: &Path) -> usize {
    fs::read_dir(root.join("staging")).unwrap().count()
}

#[tokio::test]
async fn bytes_are_kept_under_their_name_and_nothing_stays_in_staging() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path()).unwrap();
    let bytes = Bytes::from_static(b"picture");
    let [key, other] = [1, 2].map(|version| ArtifactKey::of_input([9; 32], version));
    artifacts.put(key, bytes.clone(), "image/png").await.unwrap();
    assert_eq!(artifacts.read(key).await.unwrap(), Some(bytes));
    assert_eq!(artifacts.read(other).await.unwrap(), None);
    artifacts.remove(other).await.unwrap();
    artifacts.remove(key).await.unwrap();
    assert_eq!(artifacts.read(key).await.unwrap(), None);
    drop(artifacts.stage().unwrap());
    assert_eq!(staging_count(root.path()), 0);
}

#[test]
fn a_folder_serves_one_process_and_its_secret_stays_the_same() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    std::mem::forget(folder.stage().unwrap());
    let lock = folder.lock().unwrap();
    assert_eq!(staging_count(root.path()), 0, "a crash's leftovers");
    assert!(matches!(DataFolder::open(root.path()).unwrap().lock(), Err(ArtifactError::InUse(_))));
    drop(lock);
    DataFolder::open(root.path()).unwrap().lock().unwrap();
    assert_eq!(folder.secret().unwrap(), folder.secret().unwrap());
    fs::write(root.path().join("secret"), b"short").unwrap();
    assert!(matches!(folder.secret(), Err(ArtifactError::BadSecret(_))));
}

#[tokio::test]
async fn discarding_an_attempt_removes_its_files_alone() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path()).unwrap();
    let job = Uuid::from_u128(1);
    for attempt in [1, 2] {
        let key = ArtifactKey::Video { job, attempt };
        artifacts.commit(artifacts.stage().unwrap(), key, "video/mp4").await.unwrap();
    }
    artifacts.discard_attempt(job, 1).await.unwrap();
    artifacts.discard_attempt(job, 1).await.unwrap();
    assert!(artifacts.find(ArtifactKey::Video { job, attempt: 1 }).await.unwrap().is_none());
    assert!(artifacts.find(ArtifactKey::Video { job, attempt: 2 }).await.unwrap().is_some());
}

#[test]
fn names_of_pictures_are_read_back_as_they_were_written_and_others_are_not_ours() {
    let name = |key: ArtifactKey| key.to_string().strip_prefix("inputs/").unwrap().to_owned();
    for version in [0, 1, 0xabc, i64::MAX, ArtifactKey::new_version()] {
        let key = ArtifactKey::of_input([0xa7; 32], version);
        assert_eq!(ArtifactKey::parse_input(&name(key)), Some(key));
    }
    let hash = "a7".repeat(32);
    for wrong in
        ["", "a7", "notes.txt", &hash.to_uppercase(), &hash[1..], &format!("{hash}-"), &format!("{hash}-1")]
    {
        assert_eq!(ArtifactKey::parse_input(wrong), None, "{wrong}");
    }
    assert_eq!(ArtifactKey::parse_input(&format!("{hash}-{:016x}", 0)), None);
}
