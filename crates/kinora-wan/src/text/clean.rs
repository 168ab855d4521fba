//! A prompt as typed to the text that is tokenised.
//!
//! Source: `prompt_clean` of the diffusers library: the library ftfy's `fix_text`, HTML entities undone twice, white
//! space folded. Of ftfy this does what changes well-formed text: terminal escapes, the C1 controls of Windows-1252,
//! ligatures, wide and narrow forms, curly quotes, control characters, and composition (NFC). It does not
//! guess at text that was once decoded by the wrong table ("mojibake"), which a program that takes UTF-8 only meets when
//! it is typed in on purpose.

use unicode_normalization::UnicodeNormalization as _;

/// Cleans `prompt`.
pub fn clean(prompt: &str) -> String {
    let fixed = fix_fully(prompt);
    let once = html_escape::decode_html_entities(&fixed);
    let twice = html_escape::decode_html_entities(&once);
    twice.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One fix may make room for another: an entity may stand for a curly quote.
fn fix_fully(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let fixed = fix(&text);
        if fixed == text {
            return fixed;
        }
        text = fixed;
    }
}

fn fix(text: &str) -> String {
    // Whoever writes tags means them, and then entities too.
    let text = if text.contains('<') { text.into() } else { html_escape::decode_html_entities(text) };
    let text: String = text.chars().flat_map(plain_forms).collect();
    let text: String = without_escapes(&text).chars().filter(|c| !is_control(*c)).collect();
    text.nfc().collect()
}

/// Without the terminal's colours: `ESC [`, numbers and semicolons, one letter.
fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        kept.push_str(&rest[..start]);
        let after = rest[start + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match after.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(after) => rest = after,
            None => {
                kept.push_str("\u{1b}[");
                rest = &rest[start + 2..];
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// What a character is written as plainly.
fn plain_forms(c: char) -> impl Iterator<Item = char> {
    let one = |c: char| [Some(c), None, None];
    let many = |text: &str| {
        let mut chars = text.chars();
        [chars.next(), chars.next(), chars.next()]
    };
    let forms = match c {
        '\u{80}'..='\u{9f}' => one(WINDOWS_1252[c as usize - 0x80]),
        'Ĳ' => many("IJ"),
        'ĳ' => many("ij"),
        'ŉ' => many("ʼn"),
        'Ǆ' => many("DŽ"),
        'ǅ' => many("Dž"),
        'ǆ' => many("dž"),
        'Ǉ' => many("LJ"),
        'ǈ' => many("Lj"),
        'ǉ' => many("lj"),
        'Ǌ' => many("NJ"),
        'ǋ' => many("Nj"),
        'ǌ' => many("nj"),
        'Ǳ' => many("DZ"),
        'ǲ' => many("Dz"),
        'ǳ' => many("dz"),
        'ﬀ' => many("ff"),
        'ﬁ' => many("fi"),
        'ﬂ' => many("fl"),
        'ﬃ' => many("ffi"),
        'ﬄ' => many("ffl"),
        'ﬅ' => many("ſt"),
        'ﬆ' => many("st"),
        '\u{3000}' => one(' '),
        '\u{ff01}'..='\u{ffef}' => {
            let mut wide = std::iter::once(c).nfkc();
            [wide.next(), wide.next(), wide.next()]
        }
        'ʼ' | '\u{2018}'..='\u{201b}' => one('\''),
        '\u{201c}'..='\u{201f}' => one('"'),
        '\u{2028}' | '\u{2029}' => one('\n'),
        c => one(c),
    };
    forms.into_iter().flatten()
}

/// Characters that neither print nor break lines.
fn is_control(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}'
        | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// What Windows-1252 has where Latin-1 has the C1 controls; the five it leaves free stay.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn prompts_are_cleaned_as_the_reference_does() {
        // Printed by `diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean` (diffusers 0.42.1, ftfy 6.3.1).
        for (typed, cleaned) in [
            ("  a  cat\t sits\n", "a cat sits"),
            ("色调艳丽，过曝！", "色调艳丽,过曝!"),
            ("“it’s” ﬁne…", "\"it's\" fine…"),
            ("A &amp;amp; B &lt;3", "A & B <3"),
            ("<b> &amp;", "<b> &"),
            ("\u{1b}[31mred\u{1b}[0m\u{7}", "red"),
            ("ＦＵＬＬ　ｗｉｄｔｈ ｱ", "FULL width ア"),
            ("e\u{301}", "é"),
            ("\u{feff}ŉ", "'n"),
            ("nbsp\u{a0}x\u{2003}y", "nbsp x y"),
        ] {
            assert_eq!(clean(typed), cleaned, "{typed:?}");
        }
    }
}
