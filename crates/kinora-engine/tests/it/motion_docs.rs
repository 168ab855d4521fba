//! `docs/MOTION.md` shows the vocabulary that the code has.

const BEGIN: &str = "<!-- vocabulary: generated, see below -->\n";
const END: &str = "<!-- end of vocabulary -->";

/// `KINORA_BLESS=1 cargo test -p kinora-engine --test it vocabulary` writes the table anew.
#[test]
fn the_documented_vocabulary_is_the_engines() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/MOTION.md");
    let document = std::fs::read_to_string(path).expect("docs/MOTION.md is there");
    let (before, rest) = document.split_once(BEGIN).expect("the table's beginning is marked");
    let (table, after) = rest.split_once(END).expect("the table's end is marked");
    let fresh = kinora_engine::motion::vocabulary_table();
    if std::env::var_os("KINORA_BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{fresh}{END}{after}"))
            .expect("docs/MOTION.md can be written");
        return;
    }
    assert!(
        table == fresh,
        "docs/MOTION.md is stale: KINORA_BLESS=1 cargo test -p kinora-engine --test it vocabulary"
    );
}
