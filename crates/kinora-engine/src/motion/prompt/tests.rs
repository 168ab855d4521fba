use super::lexicon::ENTRIES;
use super::*;
use crate::ClipDuration;

fn spec(prompt: &str, negative: &str) -> GenerateSpec {
    GenerateSpec { prompt: prompt.into(), negative_prompt: negative.into(), ..GenerateSpec::default() }
}

fn read(prompt: &str) -> Plan {
    plan(&spec(prompt, ""))
}

/// The camera moves as (kind, sign), in order.
fn moves(prompt: &str) -> Vec<(Move, i8)> {
    read(prompt).camera.iter().map(|m| (m.kind, if m.amount < 0.0 { -1 } else { 1 })).collect()
}

fn effects(prompt: &str) -> Vec<Effect> {
    read(prompt).scene.iter().map(|m| m.effect).collect()
}

fn amount(prompt: &str) -> f32 {
    read(prompt).camera[0].amount.abs()
}

#[test]
fn camera_phrases_mean_moves() {
    use Move::*;
    let cases = [
        ("The camera slowly zooms in on her face", vec![(Push, 1)]),
        ("zooming out to show the valley", vec![(Push, -1)]),
        ("pulls back", vec![(Push, -1)]),
        ("push-in", vec![(Push, 1)]),
        ("dolly zoom", vec![(DollyZoom, 1)]),
        ("pan slowly to the left", vec![(Pan, -1)]),
        ("pan from left to right", vec![(Pan, 1)]),
        ("tilts gently up", vec![(Tilt, -1)]),
        ("camera tilting down", vec![(Tilt, 1)]),
        ("truck right", vec![(Truck, 1)]),
        ("crane up over the city", vec![(Crane, -1)]),
        ("the camera rises", vec![(Crane, -1)]),
        ("the camera orbits clockwise around the statue", vec![(Orbit, 1)]),
        ("the camera rolls to the left", vec![(Roll, -1)]),
        ("pan left while zooming in", vec![(Pan, -1), (Push, 1)]),
        ("镜头缓缓推近", vec![(Push, 1)]),
        ("镜头向左平移，然后拉远", vec![(Truck, -1), (Push, -1)]),
        ("围绕人物顺时针环绕", vec![(Orbit, 1)]),
    ];
    for (prompt, want) in cases {
        let got = moves(prompt);
        // An orbit without a direction said may stand beside one with it: the words merge into one move.
        assert_eq!(got, want, "{prompt:?}");
    }
}

#[test]
fn what_people_do_is_not_what_the_camera_does() {
    assert!(!read("steam rises from the cup").camera[0].prompted);
    assert!(!read("she turns left and looks up").camera[0].prompted);
    assert_eq!(moves("the camera turns left"), [(Move::Pan, -1)]);
}

#[test]
fn what_sways_is_what_the_clause_is_about() {
    for still in ["static camera, grass sways", "locked off shot, the leaves sway in the wind"] {
        assert_eq!(read(still).handheld, 0.0, "{still}");
        assert!(effects(still).contains(&Effect::Foliage), "{still}");
    }
    for still in ["static camera, hair moves in the wind", "the camera is static, the clouds move right"] {
        assert_eq!(moves(still), [], "{still}");
    }
    assert_eq!(
        moves("the camera pans left, then moves in over the water"),
        [(Move::Pan, -1), (Move::Push, 1)]
    );
    assert!(read("the camera sways, snow falls").handheld > 0.5);
    assert!(read("grass waves, handheld").handheld > 0.5);
}

#[test]
fn scene_phrases_mean_effects() {
    use Effect::*;
    let cases = [
        ("clouds drifting and water rippling", vec![Clouds, Water]),
        ("leaves sway in the wind", vec![Foliage, Wind]),
        ("falling leaves", vec![Petals]),
        ("it is snowing heavily", vec![Snow]),
        ("snowy mountains under a rainbow", vec![]),
        ("fireflies over the meadow", vec![Fireflies, Foliage]),
        ("she waves goodbye", vec![]),
        ("her hair flows", vec![Hair]),
        ("god rays through the mist", vec![Rays, Fog]),
        ("白云飘动，海浪拍打", vec![Clouds, Waves]),
        ("下雪了，樱花飘落", vec![Snow, Petals]),
    ];
    for (prompt, want) in cases {
        assert_eq!(effects(prompt), want, "{prompt:?}");
    }
}

#[test]
fn modifiers_act_in_their_clause() {
    let slow = amount("zoom in slowly");
    let plain = amount("zoom in");
    let fast = amount("a quick zoom in");
    assert!(slow < plain && plain < fast, "{slow} {plain} {fast}");
    assert_eq!(amount("zoom in, strong waves"), plain);
    assert!(amount("very slow zoom in") < slow);
    assert!(amount("zoom in, slow and smooth") < plain, "a clause of modifiers counts for all");
    assert!(amount("缓慢推近") < amount("推近"));
    let waves = |prompt: &str| read(prompt).wanted(Effect::Waves).unwrap().amount;
    assert!(waves("gentle waves") < waves("waves") && waves("waves") < waves("raging waves"));
    assert!(waves("slow pan left and raging waves") > waves("waves"));
}

#[test]
fn joined_clauses_of_one_kind_share_a_modifier() {
    let plan = read("pan left and tilt up slowly");
    assert_eq!(plan.camera[0].amount.abs(), plan.camera[1].amount.abs());
    let plan = read("slowly pan left and quickly tilt up");
    assert!(plan.camera[0].amount.abs() < plan.camera[1].amount.abs());
}

#[test]
fn then_divides_the_clip() {
    let plan = read("zoom in, then pan left, then tilt up");
    let spans: Vec<_> = plan.camera.iter().map(|m| (m.kind, m.start, m.end)).collect();
    let third = 1.0 / 3.0;
    assert_eq!(
        spans,
        [(Move::Push, 0.0, third), (Move::Pan, third, 2.0 * third), (Move::Tilt, 2.0 * third, 1.0)]
    );
    let plan = read("clouds drift. After that the camera pulls back");
    assert_eq!((plan.camera[0].start, plan.camera[0].end), (0.5, 1.0));
    let plan = read("zoom in and zoom out");
    assert_eq!((plan.camera[0].end, plan.camera[1].start), (0.5, 0.5), "opposites take turns");
}

#[test]
fn negations_deny() {
    assert!(!moves("no zoom, pan left").iter().any(|m| m.0 == Move::Push));
    assert!(effects("clouds without any rain").iter().eq(&[Effect::Clouds]));
    assert_eq!(read("no camera movement, clouds drift").camera, []);
    assert_eq!(read("the camera does not move").camera, []);
    for prompt in ["slow push in, no shake", "zoom in without any jitter", "zoom in, do not shake"] {
        let plan = read(prompt);
        assert!(plan.handheld == 0.0 && plan.words.not_understood.is_empty(), "{prompt}: {:?}", plan.words);
    }
    assert_eq!(read("镜头不要移动，白云飘动").camera, []);
    assert!(effects("不要下雨，白云飘动").iter().eq(&[Effect::Clouds]));
    assert!(effects("海浪不停地拍打").iter().eq(&[Effect::Waves]));
}

#[test]
fn the_negative_prompt_denies() {
    let with = |negative: &str| plan(&spec("zoom in, clouds, rain", negative));
    assert!(!with("zoom").camera.iter().any(|m| m.kind == Move::Push));
    assert_eq!(with("camera movement").camera, []);
    assert_eq!(with("camera movement").handheld, 0.0);
    for shake in ["shaky", "shake", "jitter", "trembling"] {
        assert_eq!(with(shake).handheld, 0.0, "{shake}");
    }
    assert!(with("fast motion").camera_limit < with("").camera_limit);
    assert!(with("distorted, deformed").scene_limit < with("").scene_limit);
    assert!(with("rain").wanted(Effect::Rain).is_none());
    assert!(with("rain").denied.contains(&Effect::Rain));
    assert!(!with("film grain").grain && !with("blurry").motion_blur && !with("flickering").flicker);
}

#[test]
fn static_means_no_move_at_all() {
    for prompt in ["static camera, clouds drift", "the camera stays still", "tripod shot", "固定镜头"] {
        let plan = read(prompt);
        assert!(plan.camera.is_empty() && plan.handheld == 0.0 && !plan.drift, "{prompt:?}");
    }
}

#[test]
fn words_are_reported() {
    let words = read("Slow zoom in on a purple dragon, she smiles, 4k").words;
    assert_eq!(words.understood[0].text, "zoom in");
    assert_eq!(words.understood[0].meaning, "push in");
    assert_eq!(words.not_understood, ["purple", "dragon"]);
    assert_eq!(words.beyond_this_engine, ["smiles"]);
    assert_eq!(words.without_effect, ["4k"]);
    assert_eq!(read("镜头推近独角兽").words.not_understood, ["独角兽"]);
}

#[test]
fn cfg_orders_prompted_and_unprompted_motion() {
    let at = |cfg_scale| plan(&GenerateSpec { cfg_scale, ..spec("waves", "") });
    let waves = |cfg| at(cfg).wanted(Effect::Waves).unwrap().amount;
    assert!(waves(0.0) < waves(0.5) && waves(0.5) < waves(1.0));
    assert!(at(0.0).unprompted > at(0.5).unprompted && at(0.5).unprompted > at(1.0).unprompted);
    assert!(at(0.0).handheld > at(1.0).handheld);
}

#[test]
fn the_longest_prompt_is_read_quickly() {
    let prompt = "very slow zoom in and ".repeat(114);
    let spec = GenerateSpec { duration: ClipDuration::TenSeconds, ..spec(&prompt, &prompt) };
    assert_eq!(plan(&spec).camera.iter().filter(|m| m.prompted).count(), 0, "the negative prompt denies it");
}

#[test]
fn every_phrase_of_the_lexicon_is_found_as_itself() {
    for entry in ENTRIES {
        for phrase in entry.english.split('|').chain(entry.chinese.split('|')).filter(|p| !p.is_empty()) {
            let restrains = matches!(entry.meaning, lexicon::Meaning::Restraint(_));
            let read = clauses::read(phrase, restrains);
            let meanings: Vec<_> = read.readings.iter().map(|r| r.label).collect();
            assert_eq!(meanings, [entry.label], "{phrase:?}");
        }
    }
}
