import assert from "node:assert/strict";
import { test } from "node:test";
import type { Locator, Page } from "playwright-core";
import { assertAccessible } from "../accessible.ts";
import { live, open, signIn, URL_OF_PAGE, USERS, until } from "../page.ts";

const user = USERS.emmy;

/** Signs in on the page that emails link to. */
async function openPreferences(page: Page): Promise<void> {
  await page.goto(`${URL_OF_PAGE}/preferences`);
  await page.getByRole("button", { name: user.name }).click();
  await ready(page);
}

/** Waits for the controls themselves, not those that keep their places. */
const ready = (page: Page) => page.locator("#preferences > section").first().waitFor();

const saved = (page: Page) => page.getByRole("status").getByText("Saved").waitFor();
const type = (page: Page, name: string) => page.getByRole("group", { name, exact: true });
const howOften = (place: Locator) => place.getByRole("combobox");
const chosen = (select: Locator) => select.locator("option:checked").innerText();
const ofAll = (page: Page, name: string) => page.getByRole("switch", { name, exact: true }).first();
const focused = (page: Page) => page.evaluate("document.activeElement?.textContent");

test("what is chosen holds after a reload, until it is reset", async () => {
  const { page, complaints } = await open();
  await openPreferences(page);
  assert.equal(await chosen(howOften(type(page, "Billing"))), "As for all (daily)");
  await howOften(type(page, "Billing")).selectOption("Weekly digest");
  await saved(page);
  await page.reload();
  await ready(page);
  assert.equal(await chosen(howOften(type(page, "Billing"))), "Weekly digest");
  await page.getByRole("combobox", { name: "Weekly ones on" }).waitFor();
  await type(page, "Billing").getByText("Own choices").waitFor();
  await type(page, "Tasks").getByText("As for all types").waitFor();
  await type(page, "Billing").getByRole("button", { name: "Reset to all" }).click();
  await type(page, "Billing").getByText("As for all types").waitFor();
  await saved(page);
  assert.equal(await chosen(howOften(type(page, "Billing"))), "As for all (daily)");
  assert.deepEqual(complaints, []);
});

test("what is off for all cannot be turned on for a type", async () => {
  const { page } = await open({ colorScheme: "dark" });
  await openPreferences(page);
  await ofAll(page, "Email").setChecked(false);
  const ofTasks = type(page, "Tasks").getByRole("switch", { name: "Email" });
  assert.equal(await ofTasks.isDisabled(), true);
  assert.equal(await ofTasks.isChecked(), false);
  await type(page, "Tasks").getByText("Email is off for all.").waitFor();
  assert.equal(await type(page, "Tasks").getByRole("switch", { name: "Push" }).isEnabled(), true);
  await saved(page);
  await assertAccessible(page);
  await ofAll(page, "Email").setChecked(true);
  await until("email is on for tasks again", () => ofTasks.isChecked());
  await saved(page);
});

test("what cannot be saved is taken back, and the server's reason stands at its field", async () => {
  const { page } = await open();
  await openPreferences(page);
  await page.route("**/preferences/global", (route) => route.abort());
  await ofAll(page, "Push").click();
  await page.getByRole("alert").getByText("Your last change was not saved").waitFor();
  assert.equal(await ofAll(page, "Push").isChecked(), true);
  await page.unroute("**/preferences/global");
  await page.getByRole("button", { name: "Try again" }).click();
  await saved(page);
  assert.equal(await ofAll(page, "Push").isChecked(), false);
  await ofAll(page, "Push").setChecked(true);
  await saved(page);
  await page.getByRole("combobox", { name: "Language", exact: true }).selectOption("Another…");
  const tag = page.getByRole("textbox", { name: "Language tag" });
  await tag.fill("not a language");
  await tag.press("Enter");
  await page.getByRole("alert").getByText("Not saved:").waitFor();
  assert.equal(await tag.getAttribute("aria-invalid"), "true");
  assert.equal(await tag.inputValue(), "de");
});

test("the keyboard is enough, and history leads there and back", async () => {
  const { page } = await open();
  await signIn(page, user);
  await page.getByRole("link", { name: "Preferences" }).focus();
  await page.keyboard.press("Enter");
  await ready(page);
  assert.equal(new URL(page.url()).pathname, "/preferences");
  assert.equal(await focused(page), "Preferences");
  assert.match(await page.title(), /Preferences · Notify$/);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  assert.equal(await ofAll(page, "Email").isChecked(), false);
  await saved(page);
  await page.keyboard.press("Space");
  await saved(page);
  await page.getByRole("radio", { name: "Off" }).focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await type(page, "Saturday and Sunday").waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("a");
  assert.equal(await chosen(howOften(type(page, "Monday to Friday"))), "All day");
  await saved(page);
  await page.goBack();
  await live(page);
  assert.equal(await focused(page), "Notifications");
  await page.goForward();
  await ready(page);
  await page.getByRole("radio", { name: "Workdays and weekend apart" }).waitFor();
  await page.getByRole("radio", { name: "Off" }).check();
  await saved(page);
  await page.getByRole("link", { name: "← Notifications" }).press("Enter");
  assert.equal(new URL(page.url()).pathname, "/");
  assert.match(await page.title(), /Notifications · Notify$/);
});

test("axe finds nothing wrong on a narrow phone, where all of it fits", async () => {
  const viewport = { width: 320, height: 640 };
  const { page } = await open({ viewport });
  await openPreferences(page);
  await page.getByRole("radio", { name: "The same on chosen days" }).check();
  await type(page, "Starting on").getByRole("checkbox", { name: "Sunday" }).click();
  await saved(page);
  await assertAccessible(page);
  const isTooWide = "document.documentElement.scrollWidth > innerWidth";
  assert.equal(await page.evaluate(isTooWide), false);
  // Or this user's pushes would wait while it is night where she lives.
  await page.getByRole("radio", { name: "Off" }).check();
  await saved(page);
});
