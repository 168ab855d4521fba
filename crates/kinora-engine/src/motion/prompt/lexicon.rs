//! The words: phrases in English and Chinese and what each means. Data only.
//!
//! Phrases are separated by `|`. English ones match any inflection (their stems are compared) and may be
//! interrupted by fillers and modifiers: `zoom in` also reads "zooms slowly in". Chinese ones match character
//! by character in the same way. Longer phrases win over shorter ones.

use serde::Serialize;

/// Kinds of camera move. The positive direction: push in, right, down, clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Move {
    Push,
    Pan,
    Tilt,
    Truck,
    Crane,
    Orbit,
    Roll,
    DollyZoom,
    Handheld,
    Static,
}

/// What can move or appear in the scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    Water,
    Waves,
    Stream,
    Clouds,
    Wind,
    Foliage,
    Hair,
    Fabric,
    Fire,
    Breath,
    Smoke,
    Fog,
    Snow,
    Rain,
    Embers,
    Dust,
    Fireflies,
    Petals,
    Lights,
    Rays,
    Lightning,
}

/// What a negative prompt can hold down besides moves and effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Restraint {
    /// No camera movement at all.
    CameraMotion,
    FastMotion,
    SlowMotion,
    Distortion,
    Stillness,
    Grain,
    Flicker,
    Blur,
}

/// What a phrase means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Meaning {
    /// A move; its direction is -1 or 1, or 0 where the seed decides.
    Camera(Move, i8),
    Scene(Effect),
    /// Counts where something is denied only.
    Restraint(Restraint),
    /// Asks for what this engine cannot do.
    Beyond,
    /// Describes the picture or its quality; asks for no motion.
    Look,
}

/// Phrases of one meaning.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) meaning: Meaning,
    /// What the documentation and the plan call it.
    pub(crate) label: &'static str,
    pub(crate) english: &'static str,
    /// Count only in a clause about the camera: people and things do these too.
    pub(crate) of_camera: &'static str,
    pub(crate) chinese: &'static str,
}

const fn entry(
    meaning: Meaning,
    label: &'static str,
    english: &'static str,
    of_camera: &'static str,
    chinese: &'static str,
) -> Entry {
    Entry { meaning, label, english, of_camera, chinese }
}

use Effect::*;
use Meaning::{Beyond, Camera, Look, Scene};
use Move::*;

/// Everything that is understood.
#[rustfmt::skip]
pub(crate) const ENTRIES: &[Entry] = &[
    entry(Camera(DollyZoom, 1), "dolly zoom", "dolly zoom|vertigo|vertigo effect|zolly|hitchcock zoom|trombone shot", "",
        "滑动变焦|希区柯克变焦|眩晕效果"),
    entry(Camera(Push, 1), "push in", "zoom|zoom in|zoom into|zoom closer|zoom forward|zoom toward|push in|push forward|push closer|push toward|push into|dolly in|dolly into|dolly forward|dolly toward|dolly closer|truck in|close in on|closing in|get closer|come closer|go closer|creep in|punch in|crash zoom|close up move|fly into|fly through|fly forward|fly toward|move closer",
        "dolly|push|approach|advance|move in|move into|move forward|move toward|move through|go forward|come forward|glide forward|glide in|glide toward|travel forward|walk forward|drift forward|drift closer|drift in|ease in|drive forward|track forward|track in|enter|推|靠近",
        "推近|推进|拉近|放大|前推|推镜头|变焦推|向前移动|向前推|向前飞|往前推|逼近|特写推"),
    entry(Camera(Push, -1), "pull out", "zoom out|zoom back|zoom away|pull back|pull out|pull away|dolly out|dolly back|dolly backward|dolly away|move back|move backward|back away|fly backward|widen out|reveal shot",
        "retreat|recede|withdraw|move away|go back|go backward|track back|track out|track backward|pull|reveal|glide back|glide backward|drift back|drift backward|drift away|ease out|fly away|fly back|travel backward|widen|拉",
        "拉远|拉开|后拉|拉镜头|缩小|后退|向后移动|向后拉|远离|退后"),
    entry(Camera(Pan, -1), "pan left", "pan left|pan leftward|pan right to left|pan from right to left|swivel left|sweep left|pan to left", "turn left|look left|rotate left|swing left|sweep left|sweep from right to left",
        "左摇|向左摇|摇向左|向左平摇|左转|向左转|从右向左摇|从右到左"),
    entry(Camera(Pan, 1), "pan right", "pan right|pan rightward|pan left to right|pan from left to right|swivel right|sweep right|pan to right", "turn right|look right|rotate right|swing right|sweep from left to right",
        "右摇|向右摇|摇向右|向右平摇|右转|向右转|从左向右摇|从左到右"),
    entry(Camera(Pan, 0), "pan", "pan|pan across|pan over|pan shot|whip pan|pan around", "sweep|sweep across|look around|swivel|scan|摇", "摇镜头|摇摄|横摇"),
    entry(Camera(Tilt, -1), "tilt up", "tilt up|tilt upward|pan up|pan upward", "look up|turn up|angle up|swivel up", "上摇|向上摇|镜头仰起|上仰|仰拍"),
    entry(Camera(Tilt, 1), "tilt down", "tilt down|tilt downward|pan down|pan downward", "look down|turn down|angle down", "下摇|向下摇|镜头俯下|下俯|俯拍"),
    entry(Camera(Tilt, 0), "tilt", "tilt shot", "tilt", "俯仰"),
    entry(Camera(Truck, -1), "truck left", "truck left|strafe left|dolly left|track left|slide left|tracking shot left|lateral left", "move left|shift left|glide left|drift left|go left|travel left|slide left|fly left",
        "左移|向左移|向左平移|往左移|左平移|向左移动"),
    entry(Camera(Truck, 1), "truck right", "truck right|strafe right|dolly right|track right|slide right|tracking shot right|lateral right", "move right|shift right|glide right|drift right|go right|travel right|fly right",
        "右移|向右移|向右平移|往右移|右平移|向右移动"),
    entry(Camera(Truck, 0), "truck", "tracking shot|track shot|trucking shot|lateral move|slider shot|side tracking|dolly shot", "truck|track|strafe|slide|move sideways|move laterally|glide sideways|follow", "平移|横移|跟拍|跟随镜头|移镜头"),
    entry(Camera(Crane, -1), "crane up", "crane up|crane shot|pedestal up|boom up|jib up|jib shot|boom shot|crane shot up|drone shot|aerial shot|drone rise|drone ascend|drone lift|rise shot|rise above|drone view", "crane|boom|jib|pedestal|rise|rise up|ascend|lift|lift up|move up|move upward|go up|float up|fly up|climb|elevate|soar|升|升起",
        "上升|升起镜头|升镜头|向上移|向上移动|航拍|无人机|摇臂上升|抬升"),
    entry(Camera(Crane, 1), "crane down", "crane down|pedestal down|boom down|jib down|crane shot down|drone descend|drone lower", "descend|lower|lower down|sink|drop|drop down|move down|move downward|go down|float down|fly down|fall|降|降下",
        "下降|降镜头|向下移|向下移动|摇臂下降"),
    entry(Camera(Orbit, -1), "orbit left", "orbit left|orbit counterclockwise|orbit anticlockwise|arc left|arc shot left|circle left|circle counterclockwise|orbit counter clockwise", "rotate counterclockwise|circle around left|revolve left",
        "向左环绕|左环绕|逆时针环绕|逆时针旋转"),
    entry(Camera(Orbit, 1), "orbit right", "orbit right|orbit clockwise|arc right|arc shot right|circle right|circle clockwise", "rotate clockwise|circle around right|revolve right",
        "向右环绕|右环绕|顺时针环绕|顺时针旋转"),
    entry(Camera(Orbit, 0), "orbit", "orbit|orbit around|arc shot|arc around|circle around|circling shot|revolve around|rotate around|360|360 degree|parallax|parallax effect|3d effect|3d photo|3d", "arc|circle|revolve|spin around|move around|go around|fly around|swing around|turn around|travel around",
        "环绕|绕拍|围绕|环拍|环绕拍摄|绕着|视差|旋转拍摄"),
    entry(Camera(Roll, 1), "roll right", "camera roll right|roll clockwise", "roll right|roll clockwise|bank right", "顺时针翻滚|向右翻滚"),
    entry(Camera(Roll, -1), "roll left", "camera roll left|roll counterclockwise", "roll left|roll counterclockwise|bank left", "逆时针翻滚|向左翻滚"),
    entry(Camera(Roll, 0), "roll", "barrel roll|dutch angle|dutch tilt|camera roll|roll shot|camera spin", "roll|spin|rotate|bank", "翻滚|滚转|荷兰角|镜头旋转"),
    entry(Camera(Handheld, 1), "handheld", "handheld|hand held|shaky|shaky cam|shaking camera|camera shake|camera shaking|documentary|documentary style|vlog|found footage|bodycam|home video", "shake|jitter|wobble|tremble|sway", "手持|手持镜头|镜头晃动|抖动|晃动|纪录片|摇晃"),
    entry(Camera(Static, 1), "static camera", "static|static camera|static shot|static frame|camera still|still camera|fixed camera|fixed shot|fixed frame|locked off|locked down|lock off|tripod|tripod shot|stationary|stationary camera|camera locked|camera fixed|steady frame", "still|fix|lock|motionless|stand still|hold|hold still|stop|pause|rest|freeze|unmoving",
        "固定镜头|静止镜头|镜头固定|镜头静止|镜头不动|固定机位|三脚架|静态|镜头保持不动|静止画面"),

    entry(Scene(Water), "water", "water|lake|sea|ocean|pond|pool|lagoon|bay|ripple|reflection|seawater|lakeside|shimmering surface", "", "水|湖|海|水面|湖面|海面|涟漪|倒影|池塘|波光|大海"),
    entry(Scene(Waves), "waves", "wave|surf|swell|tide|breaker|wave crash|wave roll", "", "波浪|海浪|浪花|浪|波涛|潮水|水波"),
    entry(Scene(Stream), "running water", "stream|river|creek|brook|waterfall|cascade|rapid flow|rapids|flowing water|water flow|water rush|torrent|fountain", "", "溪|小溪|溪流|溪水|河|河流|河水|江水|瀑布|流水|水流|喷泉"),
    entry(Scene(Clouds), "clouds", "cloud|sky drift|sky move|skies|overcast|timelapse|time lapse|cloudscape|moving sky", "", "云|云彩|云朵|白云|乌云|云层|云海|延时|天空流动|流云"),
    entry(Scene(Wind), "wind", "wind|windy|breeze|breezy|gust|windswept|blow", "", "风|微风|大风|清风|吹动|吹拂|风吹"),
    entry(Scene(Foliage), "foliage", "leaf|leaves|tree|grass|grass wave|wheat wave|reed wave|field wave|grassland|plant|flower|petal|bush|shrub|foliage|forest|meadow|wheat|reed|branch|palm|bamboo|crop|vine|fern|willow|garden|jungle|vegetation|rustle|field", "", "树|树叶|叶子|草|草地|小草|青草|花|花朵|植物|森林|树林|麦田|竹|柳|枝|芦苇|草原|田野"),
    entry(Scene(Hair), "hair", "hair|hair blow|hair flow|fur|mane|whisker|beard|ponytail|braid|tress", "", "头发|发丝|长发|秀发|毛发|毛|鬃毛"),
    entry(Scene(Fabric), "fabric", "flag|flag wave|banner wave|fabric|cloth|clothes|clothing|dress|skirt|curtain|banner|sail|scarf|cape|robe|veil|silk|gown|ribbon|flutter", "", "旗|旗帜|红旗|衣服|衣裙|裙|裙摆|窗帘|围巾|披风|丝绸|布|衣角|飘带"),
    entry(Scene(Fire), "fire", "fire|flame|burn|blaze|campfire|bonfire|candle|candlelight|torch|fireplace", "", "火|火焰|篝火|燃烧|烛光|蜡烛|火堆|火光"),
    entry(Scene(Breath), "breathing", "breath|breathe|breathing|alive|lifelike|come to life|bring to life|subtle motion|idle motion", "", "呼吸|栩栩如生|活起来|动起来"),
    entry(Scene(Smoke), "smoke", "smoke|steam|vapor|vapour|smoky|fume|incense|chimney smoke", "", "烟|烟雾|蒸汽|热气|炊烟|水汽|青烟"),
    entry(Scene(Fog), "fog", "fog|mist|haze|foggy|misty|hazy", "", "雾|薄雾|迷雾|雾气|晨雾|云雾|浓雾"),
    entry(Scene(Snow), "snow", "snow|snowing|snowfall|snowflake|blizzard|flurry|flurries|snowstorm|falling snow", "", "雪|下雪|雪花|飘雪|大雪|暴风雪|飞雪"),
    entry(Scene(Rain), "rain", "rain|raining|rainy|raindrop|drizzle|downpour|rainfall|storm|stormy|rainstorm|shower of rain", "", "雨|下雨|大雨|小雨|细雨|雨水|雨滴|暴雨|暴风雨"),
    entry(Scene(Embers), "embers", "ember|spark|cinder|sparks fly|firework spark", "", "火星|余烬|火花"),
    entry(Scene(Dust), "dust", "dust|dust mote|particle|pollen|dandelion seed|floating particle|magic dust|pixie dust|dreamy particle|bokeh particle", "", "尘埃|灰尘|微粒|粒子|花粉|浮尘|尘粒"),
    entry(Scene(Fireflies), "fireflies", "firefly|fireflies|glowworm|lightning bug", "", "萤火虫"),
    entry(Scene(Petals), "falling petals", "petal fall|falling petal|petal drift|petal float|petal fly|petal blow|blossom fall|blossom drift|leaf fall|leaves fall|falling leaves|falling leaf|leaves drift|leaves float|leaves fly|confetti|cherry blossom fall", "", "花瓣飘|花瓣飘落|落花|落叶|樱花飘落|樱花飘|树叶飘落|叶子飘落|彩纸"),
    entry(Scene(Lights), "lights", "lights flicker|light flicker|flicker|twinkle|lights glow|light glow|light pulse|light shimmer|lights blink|neon|neon light|city light|lantern|lantern glow|street light|fairy light|glowing light|string light|star|stars|starlight|glitter|sparkle", "", "灯光|灯火|闪烁|霓虹|灯笼|星星|星光|闪耀|城市灯光|闪光"),
    entry(Scene(Rays), "light rays", "sun ray|sunray|light ray|god ray|sunbeam|sun beam|light beam|light shaft|sun shaft|ray of light|ray of sun|beam of light|shaft of light|crepuscular ray|volumetric light|sunlight|sunshine|lens flare|golden hour|sunset|sunrise|sun shine|sun glow", "", "光线|阳光|光束|日光|丁达尔|日落|日出|夕阳|朝阳|晚霞|霞光|光芒"),
    entry(Scene(Lightning), "lightning", "lightning|thunder|thunderstorm|lightning bolt|lightning strike|lightning flash", "", "闪电|雷电|打雷|雷暴"),

    entry(Meaning::Restraint(Restraint::CameraMotion), "camera movement", "camera movement|camera motion|camera move|move camera|moving camera|any movement of camera|camera", "move|movement|motion|移动|运动|动", "镜头移动|镜头运动|运镜|移动镜头|相机移动"),
    entry(Meaning::Restraint(Restraint::FastMotion), "fast motion", "fast|quick|sudden|abrupt|rapid|jerky|jerk|hectic|large motion|fast motion|fast movement|too much motion|excessive motion|big movement", "", "快速|急速|突然|剧烈运动|大幅度|过快|太快"),
    entry(Meaning::Restraint(Restraint::SlowMotion), "slow motion", "slow|slow motion|sluggish|too slow", "", "缓慢|太慢|过慢|慢动作"),
    entry(Meaning::Restraint(Restraint::Distortion), "distortion", "distort|distorted|distortion|warp|warping|deform|deformed|deformity|morph|stretch|rubber|rubbery|melt|bend|disfigured|mutated|malformed|bad anatomy", "", "变形|扭曲|畸变|畸形|拉伸|融化"),
    entry(Meaning::Restraint(Restraint::Stillness), "stillness", "still image|frozen|freeze|motionless|no motion|still frame|static image|lifeless", "", "静止|不动|静止不动|定格|无动作"),
    entry(Meaning::Restraint(Restraint::Grain), "grain", "grain|film grain|grainy|noise|noisy", "", "噪点|颗粒|噪声|杂色"),
    entry(Meaning::Restraint(Restraint::Flicker), "flicker", "flicker|flickering|strobe|flash", "", "闪烁|频闪"),
    entry(Meaning::Restraint(Restraint::Blur), "blur", "blur|blurry|motion blur|out of focus|unfocused|smear", "", "模糊|失焦|虚化|拖影"),

    entry(Beyond, "needs a generative engine", "smile|laugh|cry|blink|wink|nod|talk|speak|sing|walk|run|dance|jump|hug|kiss|clap|bow|wave hand|wave goodbye|wave at|turn head|turn around to|raise hand|raise arm|lift hand|look around|look at camera|open eyes|close eyes|open mouth|drive|swim|morph into|transform|turn into|explode|explosion|appear|disappear|eat|drink|fight|rack focus|focus pull|focus shift|bokeh|defocus|play guitar|play piano|gallop|fly away|flap", "",
        "微笑|笑|哭|眨眼|点头|说话|唱歌|走|行走|奔跑|跑步|跑|跳舞|跳跃|跳|拥抱|亲吻|鼓掌|挥手|转头|回头|举手|抬手|睁眼|闭眼|张嘴|开车|行驶|游泳|变成|爆炸|消失|出现|吃|喝|打斗|变焦对焦"),

    entry(Look, "looks, not motion", "high quality|best quality|low quality|worst quality|bad quality|quality|masterpiece|4k|8k|hd|uhd|ultra hd|high resolution|low resolution|resolution|detail|detailed|highly detailed|ultra detailed|realistic|photorealistic|hyperrealistic|realism|sharp|sharp focus|professional|beautiful|stunning|gorgeous|film look|cinematic lighting|soft lighting|natural lighting|lighting|dramatic lighting|color grading|watermark|text|logo|subtitle|signature|caption|artifact|compression|jpeg artifact|ugly|oversaturated|overexposed|underexposed|extra limb|extra finger|bad hands|cartoon|anime|3d render|painting|atmosphere|atmospheric|mood|style|background|foreground|scene|picture|photo|image|video|footage|clip|snowy mountain|snow mountain|snow covered|snow capped|snowcapped|snowy peak|rainbow|raincoat|fire truck|fire hydrant|fire engine|watercolor|water bottle|new wave|permanent wave|shallow depth of field|depth of field|wide shot|close up|closeup|medium shot|establishing shot|low angle|high angle|eye level|wide angle|portrait|landscape|motion|movement|move|animate|animation", "",
        "高质量|高清|超清|画质|杰作|细节|真实|写实|逼真|清晰|美丽|唯美|电影感|电影级|光影|氛围|色彩|水印|文字|字幕|低质量|丑|卡通|动漫|油画|背景|前景|画面|照片|图片|视频|雪山|彩虹|水彩|景深|特写|全景|远景|近景|人像|风景|风格|质感"),
];

/// How strongly a modifier acts and on what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Modifier {
    Strength(f32),
    Speed(f32),
    /// Doubles the effect of the modifier after it; alone it is a strong one.
    Very,
}

/// Modifiers, English by exact word.
pub(crate) const MODIFIERS: &[(Modifier, &str, &str)] = &[
    (
        Modifier::Very,
        "very extremely super ultra really incredibly highly so too",
        "非常 很 极其 十分 特别 超",
    ),
    (
        Modifier::Strength(1.55),
        "strong strongly wild wildly violent violently intense intensely dramatic dramatically powerful powerfully heavy heavily huge big large raging vigorous vigorously furious furiously fierce fiercely massive extreme turbulent roaring dense thick",
        "强烈 剧烈 猛烈 汹涌 狂 大幅 用力 激烈 浓 大",
    ),
    (
        Modifier::Strength(0.6),
        "subtle subtly slight slightly gentle gently soft softly calm calmly lightly faint faintly delicate delicately little bit mild mildly small tiny quiet quietly tender tenderly",
        "轻轻 轻微 微微 柔和 轻柔 温柔 淡淡 细微 稍微 轻 微 小",
    ),
    (Modifier::Strength(0.35), "barely hardly imperceptible imperceptibly", "几乎不 略微 隐约"),
    (
        Modifier::Speed(1.7),
        "fast faster quick quickly rapid rapidly swift swiftly rush rushing rushes speed speedy speeding whip dynamic dynamically energetic energetically timelapse hyperlapse hurried brisk briskly sudden suddenly",
        "快速 迅速 急速 飞快 快 动感 延时",
    ),
    (
        Modifier::Speed(0.72),
        "slow slowly slower smooth smoothly leisurely gradual gradually cinematic cinematically steady steadily lazily lazy unhurried",
        "缓慢 慢慢 缓缓 徐徐 平稳 平滑 慢 缓 渐渐 逐渐 悠悠",
    ),
];

/// `light` is a modifier only before what can be light.
pub(crate) const LIGHT_BEFORE: &str =
    "rain snow breeze wind fog mist drizzle snowfall haze shower movement motion sway";

/// Words that put a clause under the camera.
pub(crate) const CAMERA_WORDS: &str =
    "camera cam lens shot view viewpoint viewer drone pov we perspective frame steadicam gimbal";
pub(crate) const CAMERA_WORDS_CHINESE: &str = "镜头|相机|摄像机|摄影机|视角|机位";

/// Words that deny what follows in their clause.
pub(crate) const NEGATORS: &str = "no not without avoid never don't dont doesn't doesnt isn't isnt won't stop nor neither none cannot can't";
pub(crate) const NEGATORS_CHINESE: &str = "不要|没有|避免|禁止|不|无|别|勿";
/// Chinese words that begin like a negator and deny nothing.
pub(crate) const NO_NEGATORS_CHINESE: &str =
    "不停|不断|不时|无数|无尽|特别|镜头不动|镜头保持不动|静止不动|固定不动";

/// Words that begin the next part of the clip.
pub(crate) const SEQUENCERS: &str =
    "then|after that|afterwards|afterward|followed by|finally|subsequently|later";
pub(crate) const SEQUENCERS_CHINESE: &str = "然后|紧接着|接着|随后|之后|最后";

/// Words that join clauses of one time.
pub(crate) const CONNECTORS: &str = "and while as with plus but whilst meanwhile simultaneously during &";
pub(crate) const CONNECTORS_CHINESE: &str = "同时|并且|并|而|一边|和|与|且";

/// Words that say nothing of their own and may stand inside a phrase.
pub(crate) const FILLERS: &str = "the a an to towards toward of its it his her their our my your is are be been being was were stay stays staying remain remains keep keeps keeping kept on at in into by for from this that these those there here up over across around slight itself camera's camera lens shot view us me i she he they you them him who which where what just also only ever any some all more most much lot lots out through along behind above below down under between about begin begins start starts starting continue continues will would can could should may do does did has have had let lets make makes making want please through upon or if than like effect gets get goes go going comes come coming very direction side way toward left right we one two first bit s t";
pub(crate) const FILLERS_CHINESE: &str = "地 的 得 了 着 在 向 往 从 到 把 将 被 让 使 给 对 上 下 里 中 一 个 些 是 有 也 都 就 正 镜 头 相 机 我 你 他 她 它 们 这 那 请 左 右 前 后 起 来 去 过 随 之 其";
