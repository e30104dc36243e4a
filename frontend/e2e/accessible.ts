import assert from "node:assert/strict";
import { AxeBuilder } from "@axe-core/playwright";
import axe, { type AxeResults } from "axe-core";
import type { BrowserContext, Page } from "playwright-core";

export async function assertAccessible(page: Page): Promise<void> {
  assertNone((await new AxeBuilder({ page }).analyze()).violations);
}

/** Lets pages without frames be looked at again and again, which is dear otherwise. */
export const bringAxe = (context: BrowserContext): Promise<unknown> =>
  context.addInitScript({ content: axe.source });

/** The same where axe was brought along. */
export async function assertAccessibleAgain(page: Page): Promise<void> {
  const options = JSON.stringify({ resultTypes: ["violations"], selectors: false });
  assertNone((await page.evaluate<AxeResults>(`axe.run(${options})`)).violations);
}

function assertNone(violations: AxeResults["violations"]): void {
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(" ")}`);
  assert.deepEqual(found, []);
}
