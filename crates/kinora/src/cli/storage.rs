//! Where database and files lie: flags that several commands share.

use clap::Args;
use url::Url;

use super::{DataDir, Failure};
use crate::artifacts::{BucketSettings, BucketUrl, DataFolder};
use crate::jobs::{DatabaseUrl, JobStore, Schema, StoreSettings};

/// Where the database lies.
#[derive(Debug, Args)]
pub struct Database {
    #[command(flatten)]
    pub data: DataDir,
    /// PostgreSQL database that keeps the queue, as postgres://user:password@host/name; a file in the data folder otherwise.
    #[arg(long, value_name = "URL", env = "KINORA_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrl>,
}

impl Database {
    pub async fn open(&self, settings: StoreSettings) -> Result<JobStore, Failure> {
        Ok(match &self.database_url {
            Some(url) => JobStore::open_postgres(url, settings).await?,
            None => JobStore::open(&DataFolder::open(&self.data.data_dir)?.database(), settings).await?,
        })
    }
}

/// For commands that may run beside a server of an older release, whose database is not theirs to change.
pub fn kept() -> StoreSettings {
    StoreSettings { schema: Schema::Kept, ..StoreSettings::default() }
}

/// Where files lie, if not in the data folder.
#[derive(Debug, Args)]
pub struct Files {
    /// Bucket that keeps pictures and clips, as s3://bucket/prefix; the data folder otherwise.
    #[arg(long, value_name = "URL", env = "KINORA_ARTIFACTS")]
    artifacts: Option<BucketUrl>,
    /// Address of the S3-compatible service; Amazon's otherwise.
    #[arg(long, value_name = "URL", env = "KINORA_S3_ENDPOINT", value_parser = parse_endpoint)]
    s3_endpoint: Option<Url>,
    /// Region of the bucket.
    #[arg(long, value_name = "NAME", env = "KINORA_S3_REGION")]
    s3_region: Option<String>,
    /// Access key id; without it, the credentials that the platform provides (AWS variables, web identity, role).
    #[arg(long, value_name = "ID", env = "KINORA_S3_ACCESS_KEY_ID")]
    s3_access_key_id: Option<String>,
    /// Secret access key; better given by the variable or the file, since other users can see a process's flags.
    #[arg(long, value_name = "SECRET", env = "KINORA_S3_SECRET_ACCESS_KEY", hide_env_values = true)]
    s3_secret_access_key: Option<Hidden>,
    /// Put the bucket's name into the path instead of the host name.
    #[arg(long, env = "KINORA_S3_PATH_STYLE")]
    s3_path_style: bool,
}

/// A secret that never prints itself by accident.
#[derive(Clone)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl std::str::FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() {
        Ok(url)
    } else {
        Err("must be an http or https URL without query".to_owned())
    }
}

impl Files {
    /// The bucket that keeps files, where there is one.
    pub fn bucket(&self) -> Result<Option<BucketSettings>, Failure> {
        let Some(url) = self.artifacts.clone() else {
            let names =
                [self.s3_endpoint.is_some(), self.s3_region.is_some(), self.s3_access_key_id.is_some()];
            if names.contains(&true) {
                let told = "the --s3-… settings need --artifacts s3://bucket/prefix";
                return Err(Failure::Usage(anyhow::anyhow!(told)));
            }
            return Ok(None);
        };
        if self.s3_access_key_id.is_some() != self.s3_secret_access_key.is_some() {
            let told = "--s3-access-key-id and --s3-secret-access-key belong together";
            return Err(Failure::Usage(anyhow::anyhow!(told)));
        }
        let keys = self.s3_access_key_id.clone().zip(self.s3_secret_access_key.clone());
        Ok(Some(BucketSettings {
            url,
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            keys: keys.map(|(id, Hidden(secret))| (id, secret)),
            path_style: self.s3_path_style,
        }))
    }
}
