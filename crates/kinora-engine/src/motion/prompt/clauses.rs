//! Reads a text clause by clause: what was found, how strong and how fast, in which part of the clip, denied or not.
//!
//! Modifiers act on the phrases of their clause. Clauses joined by "and" share modifiers if only one of them
//! has any and both are about the same kind of thing. A clause of modifiers alone acts on its part of the text,
//! or on everything if that part holds nothing else.

use std::ops::Range;

use super::lexicon::*;
use super::phrases::{Found, Search, find, runs, word_set};
use super::tokens::{Token, tokens};

/// A phrase in its context.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) meaning: Meaning,
    pub(super) label: &'static str,
    /// As it stands in the text.
    pub(super) text: String,
    pub(super) strength: f32,
    pub(super) speed: f32,
    /// Which part of a "then" sequence, from 0.
    pub(super) part: usize,
    pub(super) denied: bool,
}

/// A text, read.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) readings: Vec<Reading>,
    /// Words that mean nothing here, in order, each once.
    pub(super) unknown: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Clause {
    range: Range<usize>,
    part: usize,
    /// Joined to the clause before by a connector, not by punctuation.
    joined: bool,
    /// From here on, what is found is denied.
    denied_from: Option<usize>,
    found: Vec<Found>,
    /// Tokens of `range` that are modifiers at work.
    modifiers: Vec<(Modifier, usize)>,
    /// Clauses with the same scope share modifiers.
    scope: usize,
}

/// What small words do, token by token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Role {
    filler: bool,
    modifier: Option<Modifier>,
    negator: bool,
    connector: bool,
    sequencer: bool,
    camera: bool,
}

/// Reads `text`. With `denying`, all of it denies, as a negative prompt does.
pub(super) fn read(text: &str, denying: bool) -> Text {
    let tokens = tokens(text);
    let roles = roles(&tokens);
    let mut clauses = split(&tokens, &roles);
    search(&mut clauses, &tokens, &roles, denying);
    share_modifiers(&mut clauses);
    let readings = readings(&clauses, text, &tokens, &roles, denying);
    let unknown = unknown(&clauses, text, &tokens, &roles);
    Text { readings, unknown }
}

fn roles(tokens: &[Token]) -> Vec<Role> {
    let mut roles = vec![Role::default(); tokens.len()];
    let mut mark = |phrases: &str, set: &dyn Fn(&mut Role)| {
        for (start, len) in runs(tokens, phrases) {
            roles[start..start + len].iter_mut().for_each(set);
        }
    };
    mark(NEGATORS_CHINESE, &|role| role.negator = true);
    mark(NO_NEGATORS_CHINESE, &|role| *role = Role { filler: true, ..Role::default() });
    mark(&NEGATORS.replace(' ', "|"), &|role| role.negator = true);
    mark(SEQUENCERS, &|role| role.sequencer = true);
    mark(SEQUENCERS_CHINESE, &|role| role.sequencer = true);
    mark(&CONNECTORS.replace(' ', "|"), &|role| role.connector = true);
    mark(CONNECTORS_CHINESE, &|role| role.connector = true);
    mark(&CAMERA_WORDS.replace(' ', "|"), &|role| role.camera = true);
    mark(CAMERA_WORDS_CHINESE, &|role| role.camera = true);
    mark(&FILLERS.replace(' ', "|"), &|role| role.filler = true);
    mark(&FILLERS_CHINESE.replace(' ', "|"), &|role| role.filler = true);
    for &(modifier, english, chinese) in MODIFIERS {
        mark(&english.replace(' ', "|"), &|role| role.modifier = Some(modifier));
        mark(&chinese.replace(' ', "|"), &|role| {
            // Shorter Chinese modifiers are parts of longer ones of other kinds; the first kind that reads it counts.
            role.modifier = role.modifier.or(Some(modifier));
        });
    }
    let light = word_set(LIGHT_BEFORE);
    for at in 0..tokens.len() {
        let next = tokens.get(at + 1).map_or("", |token| token.text.as_str());
        if tokens[at].text == "light" && light.contains(next) {
            roles[at].modifier = Some(Modifier::Strength(0.6));
        }
    }
    roles
}

fn split(tokens: &[Token], roles: &[Role]) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = Vec::new();
    let mut part = 0;
    let mut open = Clause::default();
    for (at, role) in roles.iter().enumerate() {
        if role.sequencer || role.connector || tokens[at].breaks {
            let joined = role.connector && !tokens[at].breaks;
            let new_part = role.sequencer && !(at > 0 && roles[at - 1].sequencer);
            open.range.end = at;
            clauses.push(std::mem::take(&mut open));
            part += usize::from(new_part);
            let start = if role.sequencer || role.connector { at + 1 } else { at };
            open = Clause { range: start..start, part, joined, ..Clause::default() };
        }
    }
    open.range.end = tokens.len();
    clauses.push(open);
    clauses.retain(|clause| !clause.range.is_empty());
    for clause in &mut clauses {
        clause.denied_from = clause.range.clone().find(|&at| roles[at].negator);
    }
    clauses
}

fn search(clauses: &mut [Clause], tokens: &[Token], roles: &[Role], denying: bool) {
    let may_skip = |at: usize| roles[at].filler || roles[at].camera || roles[at].modifier.is_some();
    let mut of_camera = false;
    for clause in clauses {
        let range = clause.range.clone();
        let named = range.clone().any(|at| roles[at].camera);
        if range.start > 0 && tokens[range.start].sentence && !named && clause.part == 0 {
            of_camera = false;
        }
        of_camera |= named;
        let turn = clause.denied_from.unwrap_or(range.end);
        let asked = Search { of_camera, denying };
        clause.found = find(tokens, range.start..turn, asked, &may_skip);
        if !named && clause.is_of(is_scene) {
            // Grass sways and flames tremble, even after words about the camera.
            let shakes = |found: &Found| matches!(found.entry.meaning, Meaning::Camera(Move::Handheld, _));
            // What stands before the verb is what moves: "hair moves in the wind".
            let scenic = |found: &&Found| is_scene(found.entry.meaning);
            let doer = clause.found.iter().find(scenic).map_or(usize::MAX, |found| found.span.start);
            clause.found.retain(|found| !found.of_camera || (found.span.start < doer && !shakes(found)));
        }
        clause.found.extend(find(tokens, turn..range.end, Search { of_camera, denying: true }, &may_skip));
        // A clause about something else takes the floor from the camera.
        let scenic = clause.found.iter().any(|found| matches!(found.entry.meaning, Meaning::Scene(_)));
        of_camera &= named || !scenic;
        let spoken_for = |at: usize| clause.found.iter().any(|found| found.words.contains(&at));
        clause.modifiers = range
            .filter(|&at| !spoken_for(at))
            .filter_map(|at| roles[at].modifier.map(|modifier| (modifier, at)))
            .collect();
    }
}

impl Clause {
    fn is_of(&self, kind: fn(Meaning) -> bool) -> bool {
        self.found.iter().any(|found| kind(found.entry.meaning))
    }

    fn acts(&self) -> bool {
        self.is_of(is_camera) || self.is_of(is_scene)
    }
}

fn is_camera(meaning: Meaning) -> bool {
    matches!(meaning, Meaning::Camera(..))
}

fn is_scene(meaning: Meaning) -> bool {
    matches!(meaning, Meaning::Scene(_))
}

/// Gives joined clauses one scope where they share modifiers.
fn share_modifiers(clauses: &mut [Clause]) {
    for k in 0..clauses.len() {
        let scope = k;
        clauses[k].scope = scope;
        if k == 0 || !clauses[k].joined {
            continue;
        }
        let (before, this) = (&clauses[k - 1], &clauses[k]);
        let alike = before.is_of(is_camera) == this.is_of(is_camera)
            && before.is_of(is_scene) == this.is_of(is_scene);
        let one_sided = before.modifiers.is_empty() || this.modifiers.is_empty();
        if (alike && one_sided) || !this.acts() {
            clauses[k].scope = before.scope;
        }
    }
}

fn readings(clauses: &[Clause], text: &str, tokens: &[Token], roles: &[Role], denying: bool) -> Vec<Reading> {
    let mut readings = Vec::new();
    for clause in clauses {
        let scope = clauses.iter().filter(|other| other.scope == clause.scope);
        let free = clauses.iter().filter(|other| {
            let lone = clauses.iter().filter(|c| c.scope == other.scope).all(|c| !c.acts());
            let heard_by =
                other.part == clause.part || !clauses.iter().any(|c| c.part == other.part && c.acts());
            lone && heard_by && only_modifies(other, roles)
        });
        let own: Vec<_> = scope.chain(free).flat_map(|c| c.modifiers.iter().copied()).collect();
        let (strength, speed) = factors(&own);
        for found in &clause.found {
            let bytes = tokens[found.span.start].bytes.start..tokens[found.span.end - 1].bytes.end;
            readings.push(Reading {
                meaning: found.entry.meaning,
                label: found.entry.label,
                text: text[bytes].to_owned(),
                strength,
                speed,
                part: clause.part,
                denied: denying || clause.denied_from.is_some_and(|from| found.span.start >= from),
            });
        }
    }
    readings
}

/// Whether nothing but modifiers, small words and talk of looks is in the clause.
fn only_modifies(clause: &Clause, roles: &[Role]) -> bool {
    let spoken_for = |at: usize| clause.found.iter().any(|found| found.words.contains(&at));
    let small = |at: usize| roles[at].filler || roles[at].camera || roles[at].modifier.is_some();
    !clause.modifiers.is_empty() && clause.range.clone().all(|at| small(at) || spoken_for(at))
}

/// The strongest modifier upwards and the strongest downwards, for strength and for speed.
fn factors(modifiers: &[(Modifier, usize)]) -> (f32, f32) {
    let (mut strength, mut speed) = ((1.0f32, 1.0f32), (1.0f32, 1.0f32));
    let widen = |range: &mut (f32, f32), factor: f32| {
        *range = (range.0.min(factor), range.1.max(factor));
    };
    for &(modifier, at) in modifiers {
        let emphatic = modifiers.iter().any(|&(other, before)| other == Modifier::Very && before + 1 == at);
        let stressed = |factor: f32| if emphatic { factor.powf(1.6) } else { factor };
        match modifier {
            Modifier::Strength(factor) => widen(&mut strength, stressed(factor)),
            Modifier::Speed(factor) => widen(&mut speed, stressed(factor)),
            Modifier::Very => {
                let stresses =
                    modifiers.iter().any(|&(other, after)| after == at + 1 && other != Modifier::Very);
                if !stresses {
                    widen(&mut strength, 1.3);
                }
            }
        }
    }
    (strength.0 * strength.1, speed.0 * speed.1)
}

fn unknown(clauses: &[Clause], text: &str, tokens: &[Token], roles: &[Role]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last_chinese = usize::MAX;
    for clause in clauses {
        for at in clause.range.clone() {
            let known =
                clause.found.iter().any(|found| found.words.contains(&at)) || roles[at] != Role::default();
            if known {
                continue;
            }
            let word = &text[tokens[at].bytes.clone()];
            match words.last_mut() {
                Some(run) if tokens[at].chinese && last_chinese.wrapping_add(1) == at => run.push_str(word),
                _ => words.push(word.to_owned()),
            }
            last_chinese = if tokens[at].chinese { at } else { usize::MAX };
        }
    }
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(word.to_lowercase()));
    words
}
