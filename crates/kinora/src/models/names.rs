//! The model names that requests ask for: a server accepts requests for its names, a worker takes requests for its own.
//!
//! Always true: there is at least one name, none twice; what a caller writes in other letters is answered in the
//! spelling given here. Which engine is behind a name is the workers' choice.

use std::sync::Arc;

use clap::Args;

use super::MODEL;

const NAME_CHARS_MAX: usize = 64;

/// Under which names requests are taken.
#[derive(Debug, Clone, Args)]
pub struct ServeAs {
    /// Name of a model that requests may ask for; repeat for more. A server accepts requests for its names, a worker
    /// makes those for its own.
    #[arg(long, value_name = "NAME", env = "KINORA_SERVE_AS", value_delimiter = ',', default_value = MODEL, value_parser = parse_name)]
    serve_as: Vec<String>,
}

impl ServeAs {
    pub fn names(&self) -> ModelNames {
        ModelNames::new(&self.serve_as)
    }
}

/// Names go into paths, log lines and labels of metrics.
fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to {NAME_CHARS_MAX} letters, digits, dots, hyphens and underscores"))
    }
}

/// Model names in the order they were given. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelNames(Arc<[String]>);

impl Default for ModelNames {
    fn default() -> Self {
        Self::new(&[MODEL.to_owned()])
    }
}

impl ModelNames {
    /// Of names that are repeated, the first spelling counts.
    pub fn new(names: &[String]) -> Self {
        assert!(!names.is_empty(), "there is a default");
        let is_first =
            |place: usize| !names[..place].iter().any(|name| name.eq_ignore_ascii_case(&names[place]));
        Self((0..names.len()).filter(|place| is_first(*place)).map(|place| names[place].clone()).collect())
    }

    /// The spelling in which a name is answered; `None` where it is not served.
    pub fn canonical(&self, name: &str) -> Option<&str> {
        self.iter().find(|served| served.eq_ignore_ascii_case(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(String::as_str)
    }

    pub fn first(&self) -> &str {
        &self.0[0]
    }

    /// All names, another one first at each turn, so that none is always looked at last.
    pub fn in_turn(&self, turn: usize) -> impl Iterator<Item = &str> {
        self.iter().cycle().skip(turn % self.0.len()).take(self.0.len())
    }
}

impl std::fmt::Display for ModelNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_any_letters_and_kept_once() {
        let names = ModelNames::new(&["Alpha".into(), "beta".into(), "ALPHA".into()]);
        assert_eq!(names.to_string(), "Alpha, beta");
        assert_eq!((names.canonical("aLPHA"), names.canonical("BETA")), (Some("Alpha"), Some("beta")));
        assert_eq!(names.canonical("gamma"), None);
        assert_eq!(ModelNames::default().first(), MODEL);
    }

    #[test]
    fn each_name_is_first_in_its_turn() {
        let names = ModelNames::new(&["a".into(), "b".into(), "c".into()]);
        let turns = [0, 1, 2, 3].map(|turn| names.in_turn(turn).collect::<String>());
        assert_eq!(turns, ["abc", "bca", "cab", "abc"]);
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(parse_name("Wan2.2-I2V_A14B"), Ok("Wan2.2-I2V_A14B".to_owned()));
        for wrong in ["", "a/b", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(parse_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
