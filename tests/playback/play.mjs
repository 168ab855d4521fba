// Plays one clip in headless Chromium as a person would: load, play, seek to the middle, look, play to the end.
// Usage: node play.mjs CHROMIUM URL SCREENSHOT.png PROFILE_DIR; prints what was seen as one line of JSON.

import { chromium } from "playwright-core";

const [executablePath, url, screenshot, profileDir] = process.argv.slice(2);
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];
const LIMIT_MS = 60_000;

const context = await chromium.launchPersistentContext(profileDir, {
  executablePath,
  headless: true,
  args: FLAGS,
  viewport: { width: 1280, height: 1280 },
});
try {
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT_MS);
  await page.setContent(`<body style="margin:0"><video muted playsinline preload="auto" style="max-width:100%"></video>`);
  const seen = await page.evaluate(async ({ url, limitMs }) => {
    const video = document.querySelector("video");
    const event = (name) =>
      new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, { once: true });
        video.addEventListener("error", () => reject(new Error(`video error ${video.error?.message}`)), { once: true });
        setTimeout(() => reject(new Error(`no '${name}' within ${limitMs} ms`)), limitMs);
      });
    const loaded = event("loadeddata");
    video.src = url;
    await loaded;
    await video.play();
    const began = performance.now();
    while (video.currentTime < 0.6 && performance.now() - began < limitMs) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    video.pause();
    const played = video.currentTime;
    const sought = event("seeked");
    video.currentTime = video.duration / 2;
    await sought;
    return {
      width_px: video.videoWidth,
      height_px: video.videoHeight,
      duration_s: video.duration,
      played_s: played,
      sought_s: video.currentTime,
    };
  }, { url, limitMs: LIMIT_MS });
  await page.locator("video").screenshot({ path: screenshot });
  seen.ended = await page.evaluate(async (limitMs) => {
    const video = document.querySelector("video");
    const ended = new Promise((resolve) => {
      video.addEventListener("ended", () => resolve(true), { once: true });
      setTimeout(() => resolve(false), limitMs);
    });
    video.currentTime = video.duration - 0.5;
    await video.play();
    return ended;
  }, LIMIT_MS);
  process.stdout.write(`${JSON.stringify(seen)}\n`);
} finally {
  await context.close();
}
