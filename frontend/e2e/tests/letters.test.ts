import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { assertAccessible } from "../accessible.ts";
import { newContext } from "../page.ts";

const ROOT = join(import.meta.dirname, "../../..");
/** The narrowest there is. */
const PHONE = 320;
const DESKTOP = 1200;

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "notify-letters-"));
  const python = join(ROOT, ".venv/bin/python");
  await promisify(execFile)(python, [join(ROOT, "scripts/letters.py"), folder]);
});
after(async () => {
  await rm(folder, { recursive: true });
});

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing wrong with any letter in ${colorScheme}, and phones show it whole`, async () => {
    await checkLetters(folder, colorScheme, PHONE);
    await checkLetters(folder, colorScheme, DESKTOP);
  });
}

// Their layout is that of the letters above, so once is enough for what stands in it.
test("axe finds nothing wrong with any shipped template in any language", () =>
  checkLetters(join(folder, "templates"), "light", PHONE));

test("the tables of the shipped templates can be read in the dark, too", () =>
  checkLetters(join(folder, "templates"), "dark", PHONE, /^login_alert\./));

async function checkLetters(
  directory: string,
  colorScheme: "light" | "dark",
  width: number,
  chosen = /\.html$/,
): Promise<void> {
  const names = (await readdir(directory))
    .filter((name) => name.endsWith(".html") && chosen.test(name))
    .sort();
  assert.ok(names.length > 0);
  const context = await newContext({ colorScheme, viewport: { width, height: 800 } });
  // Nothing is loaded from elsewhere: the pixel of a letter leads to a host that is none.
  await context.route(/^https?:/, (route) => route.abort());
  const page = await context.newPage();
  for (const name of names) {
    // Unlike a new page, new content keeps what was brought along, which takes longest to load.
    await page.setContent(await readFile(join(directory, name), "utf8"));
    assert.ok((await widthOf(page)) <= width, `${name} is wider than ${width} pixels`);
    await assertAccessible(page).catch((error: unknown) => {
      throw new Error(`${name}, ${width} pixels wide`, { cause: error });
    });
  }
  await context.close();
}

const widthOf = (page: Page): Promise<number> =>
  page.evaluate("document.documentElement.scrollWidth");
