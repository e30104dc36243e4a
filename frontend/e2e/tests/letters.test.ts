import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import type { Browser, Page } from "playwright-core";
import { assertAccessibleAgain, bringAxe } from "../accessible.ts";
import { launch, newContext } from "../page.ts";

const ROOT = join(import.meta.dirname, "../../..");
const WIDTHS = [375, 1200];
const NARROWEST = 320;

let browser: Browser;
let folder: string;
let letters: string[];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "notify-letters-"));
  const python = join(ROOT, ".venv/bin/python");
  await promisify(execFile)(python, [join(ROOT, "scripts/letters.py"), folder]);
  letters = (await readdir(folder)).filter((name) => name.endsWith(".html")).sort();
  browser = await launch();
});
after(async () => {
  await browser.close();
  await rm(folder, { recursive: true });
});

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing wrong with any letter in ${colorScheme}, and phones show it whole`, async () => {
    assert.ok(letters.length > 0);
    const context = await newContext(browser, { colorScheme });
    await bringAxe(context);
    // Nothing is loaded from elsewhere: the pixel of a letter leads to a host that is none.
    await context.route(/^https?:/, (route) => route.abort());
    const page = await context.newPage();
    for (const name of letters) {
      await page.goto(pathToFileURL(join(folder, name)).href);
      await page.setViewportSize({ width: NARROWEST, height: 800 });
      assert.ok((await widthOf(page)) <= NARROWEST, `${name} is wider than a phone`);
      for (const width of WIDTHS) {
        await page.setViewportSize({ width, height: 800 });
        await assertAccessibleAgain(page).catch((error: unknown) => {
          throw new Error(`${name}, ${width} pixels wide`, { cause: error });
        });
      }
    }
    await context.close();
  });
}

const widthOf = (page: Page): Promise<number> =>
  page.evaluate("document.documentElement.scrollWidth");
