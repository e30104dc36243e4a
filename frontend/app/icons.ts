/** Draws the icons in `public/assets` from the favicon, by `npm run icons`. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";

const ASSETS = join(import.meta.dirname, "public/assets");
const drawing = await readFile(join(import.meta.dirname, "src/favicon.svg"), "utf8");
const [background = "", ...bell] = drawing.match(/<(?:rect|path) [^>]*>/g) ?? [];

const svg = (content: string) =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${content}</svg>`;
const square = background.replace(/ rx="\d+"/, "");
const full = svg(square + bell.join(""));
const larger = `<g transform="translate(-9.6 -11.8) scale(1.6)">${bell.join("")}</g>`;

const ICONS: readonly (readonly [name: string, size: number, drawing: string])[] = [
  ["icon-192", 192, drawing],
  ["icon-512", 512, drawing],
  // Cut into a shape by Android, and by iOS.
  ["icon-maskable-512", 512, full],
  ["apple-touch-icon", 180, full],
  // Of this, Android shows the shape alone.
  ["badge-96", 96, svg(larger)],
];

const browser = await chromium.launch({
  executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage();
for (const [name, size, content] of ICONS) {
  await page.setViewportSize({ width: size, height: size });
  await page.setContent(`<style>body { margin: 0 } svg { display: block }</style>${content}`);
  await page.screenshot({ path: join(ASSETS, `${name}.png`), omitBackground: true });
}
await browser.close();
