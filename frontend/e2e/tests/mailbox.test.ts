import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrowserContextOptions, Page } from "playwright-core";
import { assertAccessible } from "../accessible.ts";
import { open, URL_OF_SANDBOX } from "../page.ts";

const HTML = `<!doctype html><html><head><style>
  p { color: rgb(1, 1, 1) }
  @media (prefers-color-scheme: dark) { p { color: rgb(2, 2, 2) } }
</style></head><body><p>Hello</p><a href="${URL_OF_SANDBOX}/devices">Devices</a></body></html>`;

test("a mail is read in all its parts, and bounces at a click", async () => {
  const page = await mailbox("A mail to read");
  await page.getByRole("option", { name: "A mail to read" }).click();

  await page.getByRole("tab", { name: "Text" }).click();
  await page.getByRole("tabpanel").getByText("Hello as text").waitFor();
  await page.getByRole("tab", { name: "Source" }).click();
  await page.getByRole("tabpanel").getByText("List-Unsubscribe: <https://example.com/u>").waitFor();
  await page.getByRole("tab", { name: "Events" }).click();
  await page.getByRole("button", { name: "Bounce, soft" }).click();
  const events = page.getByRole("list", { name: "What became of this mail" });
  await events.getByText("Transient, MailboxFull").waitFor();
  assert.deepEqual(await events.locator("strong").allInnerTexts(), [
    "Sent",
    "Delivered",
    "Bounced",
  ]);
  const row = page.getByRole("option", { name: "A mail to read" });
  await row.getByText("Bounced").waitFor();
});

test("mails are shown light or dark, and their links open beside the page", async () => {
  const page = await mailbox("A mail in the dark", { colorScheme: "dark" });
  await page.getByRole("option", { name: "A mail in the dark" }).click();
  const text = page.frameLocator("#frame").getByText("Hello");
  const colour = () => text.evaluate((shown) => getComputedStyle(shown).color);

  await text.waitFor();
  assert.equal(await colour(), "rgb(2, 2, 2)");
  const reloaded = page.waitForResponse((answer) => answer.url().includes("scheme=light"));
  await page.getByRole("button", { name: "Dark" }).click();
  await reloaded;
  await page.waitForFunction(() => document.querySelector("#dark")?.ariaPressed === "false");
  await text.waitFor();
  assert.equal(await colour(), "rgb(1, 1, 1)");
  const opened = page.waitForEvent("popup");
  await page.frameLocator("#frame").getByRole("link", { name: "Devices" }).click();
  await (await opened).getByRole("heading", { name: "Sandbox devices" }).waitFor();
});

for (const [name, options] of Object.entries({
  "a light desktop": { colorScheme: "light" },
  "a dark phone": { colorScheme: "dark", viewport: { width: 390, height: 844 } },
} satisfies Record<string, BrowserContextOptions>)) {
  test(`the mailbox is accessible on ${name}`, async () => {
    const page = await mailbox("A mail for everybody", options);
    await page.getByRole("option", { name: "A mail for everybody" }).first().click();
    for (const part of ["HTML", "Headers", "Source", "Events"]) {
      await page.getByRole("tab", { name: part }).click();
      await assertAccessible(page, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] });
    }
  });
}

/** The mailbox's page once a mail with this subject is in it. */
async function mailbox(subject: string, options: BrowserContextOptions = {}): Promise<Page> {
  const answer = await fetch(`${URL_OF_SANDBOX}/resend/emails`, {
    method: "POST",
    headers: { Authorization: "Bearer re_any", "Content-Type": "application/json" },
    body: JSON.stringify({
      from: "Notify <noreply@example.com>",
      to: "reader@example.com",
      subject,
      html: HTML,
      text: "Hello as text",
      headers: { "List-Unsubscribe": "<https://example.com/u>" },
    }),
  });
  assert.equal(answer.status, 200);
  const { page } = await open(options);
  await page.goto(URL_OF_SANDBOX);
  return page;
}
