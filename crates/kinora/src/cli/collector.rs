//! Where traces go.

use clap::Args;
use url::Url;

use super::Failure;
use crate::traces;

/// Where traces go.
#[derive(Debug, Args)]
pub(super) struct Collector {
    /// Collector that OpenTelemetry traces go to over HTTP, such as http://localhost:4318; nowhere otherwise. Only where
    /// kinora was built with the feature `otlp`.
    #[arg(long, value_name = "URL", env = "KINORA_OTLP_ENDPOINT", value_parser = parse_endpoint)]
    otlp_endpoint: Option<Url>,
}

impl Collector {
    /// Sends traces from now on, if that is wanted.
    pub(super) fn start(&self) -> Result<(), Failure> {
        let started = self.otlp_endpoint.as_ref().map_or(Ok(()), traces::start);
        started.map_err(|error| Failure::Usage(error.into()))
    }
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    let is_web =
        matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    if is_web { Ok(url) } else { Err("must be an http or https URL without query or fragment".to_owned()) }
}
