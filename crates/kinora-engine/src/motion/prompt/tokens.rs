//! Text becomes tokens: stemmed Latin words and single Chinese characters, each knowing where it stood.
//!
//! Always true: offsets are bytes of the original text on character boundaries; any text gives tokens.
//! Stems are Porter's ("An algorithm for suffix stripping", 1980; its second version, Snowball English).

use std::ops::Range;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// One word or one Chinese character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Lower case.
    pub(super) text: String,
    /// What phrases are compared by.
    pub(super) stem: String,
    pub(super) bytes: Range<usize>,
    /// Punctuation stands between this token and the one before.
    pub(super) breaks: bool,
    /// The punctuation ends a sentence.
    pub(super) sentence: bool,
    pub(super) chinese: bool,
}

/// The form by which words are compared.
pub(super) fn stem(word: &str) -> String {
    if word.is_ascii() { STEMMER.stem(word).into_owned() } else { word.to_owned() }
}

/// Splits `text` into tokens.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut splitter =
        Splitter { tokens: Vec::new(), word: String::new(), start: 0, breaks: false, sentence: false };
    for (at, c) in text.char_indices() {
        splitter.take(at, c);
    }
    splitter.end_word(text.len());
    splitter.tokens
}

struct Splitter {
    tokens: Vec<Token>,
    word: String,
    start: usize,
    breaks: bool,
    sentence: bool,
}

impl Splitter {
    fn take(&mut self, at: usize, c: char) {
        if is_chinese(c) {
            self.end_word(at);
            self.push(c.to_string(), at..at + c.len_utf8(), true);
        } else if c.is_alphanumeric() || (matches!(c, '\'' | '’') && !self.word.is_empty()) {
            if self.word.is_empty() {
                self.start = at;
            }
            let c = if c == '’' { '\'' } else { c };
            self.word.extend(c.to_lowercase());
        } else {
            self.end_word(at);
            self.breaks |= is_break(c);
            self.sentence |= matches!(c, '.' | '!' | '?' | '。' | '！' | '？' | '\n');
            if c == '&' {
                self.push("&".into(), at..at + 1, false);
            }
        }
    }

    fn end_word(&mut self, end: usize) {
        if self.word.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.word);
        self.push(text.trim_end_matches('\'').to_owned(), self.start..end, false);
    }

    fn push(&mut self, text: String, bytes: Range<usize>, chinese: bool) {
        let word = text.strip_suffix("'s").unwrap_or(&text);
        let stem = stem(word);
        let (breaks, sentence) = (std::mem::take(&mut self.breaks), std::mem::take(&mut self.sentence));
        self.tokens.push(Token { stem, text, bytes, breaks, sentence, chinese });
    }
}

fn is_chinese(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

fn is_break(c: char) -> bool {
    matches!(
        c,
        ',' | '.'
            | ';'
            | ':'
            | '!'
            | '?'
            | '\n'
            | '('
            | ')'
            | '，'
            | '。'
            | '；'
            | '：'
            | '！'
            | '？'
            | '、'
            | '—'
            | '|'
    )
}
