//! Finds the lexicon's phrases in tokens.
//!
//! Always true: a token belongs to at most one phrase; among phrases that begin at a token the one with most
//! words wins, then the one that ends first.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use super::lexicon::{ENTRIES, Entry, Meaning, Move};
use super::tokens::{Token, tokens};

/// Words that may stand between two words of a phrase.
const GAP_MAX: usize = 4;

#[derive(Debug)]
struct Phrase {
    words: Vec<String>,
    of_camera: bool,
    entry: &'static Entry,
}

static PHRASES: LazyLock<HashMap<String, Vec<Phrase>>> = LazyLock::new(|| {
    let mut by_first: HashMap<String, Vec<Phrase>> = HashMap::new();
    for entry in ENTRIES {
        for (list, of_camera) in [(entry.english, false), (entry.chinese, false), (entry.of_camera, true)] {
            for phrase in list.split('|').filter(|phrase| !phrase.is_empty()) {
                let words: Vec<String> = tokens(phrase).into_iter().map(|token| token.stem).collect();
                by_first.entry(words[0].clone()).or_default().push(Phrase { words, of_camera, entry });
            }
        }
    }
    by_first
});

/// A phrase found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) entry: &'static Entry,
    /// Whether it counts in clauses about the camera only.
    pub(super) of_camera: bool,
    /// From the first word to after the last one, gaps included.
    pub(super) span: Range<usize>,
    /// The tokens that are words of the phrase.
    pub(super) words: Vec<usize>,
}

/// What a search may find.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// The clause is about the camera.
    pub(super) of_camera: bool,
    /// The clause denies: restraints count, and come first.
    pub(super) denying: bool,
}

/// All phrases in `tokens[range]`; `may_skip` says which tokens may stand inside one.
pub(super) fn find(
    tokens: &[Token],
    range: Range<usize>,
    search: Search,
    may_skip: &dyn Fn(usize) -> bool,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut taken = vec![false; tokens.len()];
    for at in range.clone() {
        if taken[at] {
            continue;
        }
        let free = |k: usize| !taken[k];
        let best = PHRASES
            .get(&tokens[at].stem)
            .into_iter()
            .flatten()
            .filter(|phrase| search.of_camera || !phrase.of_camera || denies_shake(phrase, search))
            .filter(|phrase| search.denying || !matches!(phrase.entry.meaning, Meaning::Restraint(_)))
            .filter_map(|phrase| {
                let words = read(phrase, tokens, at..range.end, &free, may_skip)?;
                Some((phrase, words))
            })
            .max_by_key(|(phrase, words)| {
                (words.len(), std::cmp::Reverse(words.last().copied()), restrains(phrase, search))
            });
        if let Some((phrase, words)) = best {
            words.iter().for_each(|&k| taken[k] = true);
            let end = words.last().map_or(at, |&k| k) + 1;
            found.push(Found { entry: phrase.entry, of_camera: phrase.of_camera, span: at..end, words });
        }
    }
    found
}

/// "No shake" is about the camera even where nothing else says so.
fn denies_shake(phrase: &Phrase, search: Search) -> bool {
    const OF_PLANTS: &str = "sway";
    search.denying
        && matches!(phrase.entry.meaning, Meaning::Camera(Move::Handheld, _))
        && phrase.words[0] != OF_PLANTS
}

fn restrains(phrase: &Phrase, search: Search) -> bool {
    search.denying && matches!(phrase.entry.meaning, Meaning::Restraint(_))
}

/// The tokens that spell `phrase` from the start of `range` on, or None.
fn read(
    phrase: &Phrase,
    tokens: &[Token],
    range: Range<usize>,
    free: &dyn Fn(usize) -> bool,
    may_skip: &dyn Fn(usize) -> bool,
) -> Option<Vec<usize>> {
    let mut at = range.start;
    let mut words = vec![at];
    for word in &phrase.words[1..] {
        let mut gap = 0;
        at += 1;
        while at < range.end && tokens[at].stem != *word {
            if gap == GAP_MAX || !may_skip(at) {
                return None;
            }
            (at, gap) = (at + 1, gap + 1);
        }
        if at >= range.end || !free(at) {
            return None;
        }
        words.push(at);
    }
    Some(words)
}

/// A list of separate words, as in the lexicon's small lists.
pub(super) fn word_set(list: &'static str) -> std::collections::HashSet<&'static str> {
    list.split([' ', '|']).filter(|word| !word.is_empty()).collect()
}

/// Where a token run spells one of `phrases` (separated by `|`), longest first: (start, length).
pub(super) fn runs(tokens: &[Token], phrases: &str) -> Vec<(usize, usize)> {
    let spelled: Vec<Vec<String>> =
        phrases.split('|').map(|phrase| phrase.split(' ').flat_map(split_word).collect()).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let longest = spelled
            .iter()
            .filter(|words| {
                words.len() <= tokens.len() - at && words.iter().zip(&tokens[at..]).all(|(w, t)| *w == t.text)
            })
            .map(Vec::len)
            .max();
        if let Some(len) = longest {
            found.push((at, len));
        }
        at += longest.unwrap_or(1);
    }
    found
}

fn split_word(word: &str) -> Vec<String> {
    if word.is_ascii() { vec![word.to_owned()] } else { word.chars().map(String::from).collect() }
}
