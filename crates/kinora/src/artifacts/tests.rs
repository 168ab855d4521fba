use std::fs;

use super::*;

fn staging_count(root: &Path) -> usize {
    fs::read_dir(root.join("staging")).unwrap().count()
}

#[tokio::test]
async fn a_picture_is_kept_once_under_its_hash_and_nothing_stays_in_staging() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path()).unwrap();
    let bytes = Bytes::from_static(b"picture");
    let sha256 = artifacts.put_input(bytes.clone(), "image/png").await.unwrap();
    assert_eq!(artifacts.put_input(bytes.clone(), "image/png").await.unwrap(), sha256);
    assert_eq!(artifacts.read(ArtifactKey::Input(sha256)).await.unwrap(), Some(bytes));
    assert_eq!(artifacts.read(ArtifactKey::Input([0; 32])).await.unwrap(), None);
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
