//! The address of a picture: refused, or one that means the same when it is stored and read again, and no way inside.
#![no_main]

use std::net::IpAddr;

use fetch::{check_url, may_reach};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use submission::{ImageSource, Submission};
use url::{Host, Url};

// The product crate would bring a database and a web server along; these modules need neither.
#[allow(dead_code, reason = "what connects is elsewhere")]
#[path = ""]
mod fetch {
    #[path = "../../crates/kinora/src/fetch/address.rs"]
    mod address;
    #[path = "../../crates/kinora/src/fetch/bounds.rs"]
    mod bounds;

    /// Whether a fetch goes on to look its host up.
    pub fn check_url(url: &url::Url) -> bool {
        bounds::check_url(url).is_ok()
    }

    /// Whether a fetch would connect to this address.
    pub fn may_reach(address: std::net::IpAddr) -> bool {
        bounds::FetchPolicy::default().may_reach(address)
    }
}
#[allow(dead_code, reason = "one of its two users is elsewhere")]
#[path = "../../crates/kinora/src/submission.rs"]
mod submission;

fuzz_target!(|text: &str| {
    // What follows a line break is where the first redirect leads.
    let (text, redirect) = text.split_once('\n').unwrap_or((text, ""));
    let payload = Map::from_iter([("image".to_owned(), Value::from(text))]);
    let Ok(Submission { image: ImageSource::Url(url), .. }) = Submission::parse(&payload) else { return };
    assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(&url), "stored and read again");
    assert_outside(&url);
    if let Ok(next) = url.join(redirect) {
        assert_outside(&next);
    }
});

/// What may be fetched is on the web and, where it names an address, not here.
fn assert_outside(url: &Url) {
    if !check_url(url) {
        return;
    }
    assert!(matches!(url.scheme(), "http" | "https") && url.username().is_empty(), "{url}");
    let address = match url.host().expect("every web address has a host") {
        Host::Domain(name) => return assert!(name.parse::<IpAddr>().is_err(), "{url} hides an address"),
        Host::Ipv4(address) => IpAddr::V4(address),
        Host::Ipv6(address) => address.to_canonical(),
    };
    let is_inside = match address {
        IpAddr::V4(address) => {
            address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    };
    assert!(!is_inside || !may_reach(address), "{url} leads inside");
}
