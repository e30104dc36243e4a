import assert from "node:assert/strict";
import axe, { type AxeResults, type RunOptions } from "axe-core";
import type { Page } from "playwright-core";

/** Has axe look at the page, but not into its frames. */
export async function assertAccessible(page: Page, options: RunOptions = {}): Promise<void> {
  const wanted = { ...options, iframes: false, resultTypes: ["violations"], selectors: false };
  // It takes long to load, and stays as long as the page does.
  if (!(await page.evaluate("'axe' in window"))) await page.evaluate(axe.source);
  const run = `axe.run({ exclude: ["iframe"] }, ${JSON.stringify(wanted)})`;
  const { violations } = await page.evaluate<AxeResults>(run);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(" ")}`);
  assert.deepEqual(found, []);
}
