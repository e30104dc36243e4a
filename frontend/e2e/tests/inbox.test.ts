import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  live,
  MOVING,
  open,
  send,
  sendByForm,
  signIn,
  titled,
  URL_OF_PAGE,
  USERS,
  unreadCount,
  waitForCount,
} from "../page.ts";

const user = USERS.ada;

test("what is sent through the form appears with the count, in every window of the user", async () => {
  const [first, second] = await Promise.all([open(), open()]);
  await Promise.all([signIn(first.page, user), signIn(second.page, user)]);
  const count = await unreadCount(first.page);

  const id = await sendByForm(first.page, { title: "Build 41 is green" });

  assert.match(id, /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  for (const { page } of [first, second]) {
    await titled(page, "Build 41 is green").waitFor();
    await waitForCount(page, count + 1);
    assert.equal(await titled(page, "Build 41 is green").count(), 1);
    assert.equal(await page.locator(".list > li").first().getAttribute("data-id"), id);
  }
  assert.equal(await titled(first.page, "Build 41 is green").locator("strong").count(), 1);
  assert.match(await first.page.getByTestId("receipt").innerText(), /202 Accepted.*in-app/s);
  assert.deepEqual([...first.complaints, ...second.complaints], []);
});

test("signing in lasts for the tab, and ends by signing out", async () => {
  const { page, complaints } = await open();
  await signIn(page, user);
  await page.reload();
  await live(page);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in to Notify" }).waitFor();
  await page.reload();
  await page.getByRole("button", { name: user.name }).waitFor();
  assert.deepEqual(complaints, []);
});

test("a field the server refuses says so and is focused", async () => {
  const { page } = await open();
  await signIn(page, user);
  await page.getByRole("textbox", { name: "Title" }).fill("");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  const title = page.getByRole("textbox", { name: "Title" });
  await page.locator(".field__problem").waitFor();
  assert.equal(await title.getAttribute("aria-invalid"), "true");
  assert.equal(await title.evaluate((field) => field === document.activeElement), true);
  await sendByForm(page, { title: "Now with a title" });
  assert.equal(await title.getAttribute("aria-invalid"), "false");
});

test("older notifications come by the page, to the end and once each", async () => {
  const { page, complaints } = await open();
  const reader = USERS.muhammad;
  for (let number = 1; number <= 23; number++) await send(reader, `Number ${number}`);
  await signIn(page, reader);
  assert.equal(await page.getByRole("article").count(), 20);
  await page.getByRole("button", { name: "Show older" }).click();
  await page.getByText("That is everything.").waitFor();
  const titles = await page.getByRole("article").getByRole("heading").allTextContents();
  const expected = Array.from({ length: 23 }, (_, index) => `Unread: Number ${23 - index}`);
  assert.deepEqual(titles, expected);
  assert.deepEqual(complaints, []);
});

test("an arrival moves nothing by jumping and is announced", async () => {
  const { page } = await open(MOVING);
  await signIn(page, user);
  await send(user, "Something to move");
  await titled(page, "Something to move").waitFor();
  await page.waitForTimeout(1_000);
  await observeShifts(page);
  await send(user, "Something that moves");
  await titled(page, "Something that moves").waitFor();
  await page.waitForTimeout(1_000);
  assert.ok((await shifts(page)) < 0.01, `shifted by ${await shifts(page)}`);
  assert.equal(
    await page.getByTestId("announcer").locator("p").last().textContent(),
    "New notification: Something that moves",
  );
});

test("loading moves nothing by jumping", async () => {
  for (const viewport of [
    { width: 1280, height: 800 },
    { width: 390, height: 844 },
  ]) {
    const { page } = await open({ ...MOVING, viewport });
    await page.addInitScript(startObserving);
    await signIn(page, user);
    await page.reload();
    await live(page);
    await page.waitForTimeout(300);
    assert.ok((await shifts(page)) < 0.01, `${viewport.width}: shifted by ${await shifts(page)}`);
  }
});

test("a failed page can be tried again", async () => {
  const { page } = await open();
  let fail = true;
  await page.route("**/api/v1/notifications?**", (route) =>
    fail ? route.fulfill({ status: 502, body: "Bad Gateway" }) : route.continue(),
  );
  await page.goto(URL_OF_PAGE);
  await page.getByRole("button", { name: user.name }).click();
  // Going live tries once more by itself.
  await live(page);
  await page.waitForTimeout(500);
  await page.getByText("The server answered with status 502.").waitFor();
  fail = false;
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByText("The server answered with status 502.").waitFor({ state: "detached" });
  await page.getByRole("article").first().waitFor();
});

test("where there is no demo the page says who signs users in", async () => {
  const { page } = await open();
  await page.route("**/demo/**", (route) => route.fulfill({ status: 404, json: {} }));
  await page.goto(URL_OF_PAGE);
  await page.getByText("Your own application signs people in").waitFor();
});

/** Runs in the page: sums up what jumps from now on, whether or not somebody just clicked. */
function startObserving() {
  const page = Object.assign(window, { shifted: 0 });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) page.shifted += (entry as LayoutShift).value;
  }).observe({ type: "layout-shift" });
}

type LayoutShift = PerformanceEntry & { value: number };

const observeShifts = (page: Page) => page.evaluate(startObserving);

const shifts = (page: Page) =>
  page.evaluate(() => (window as { shifted?: number }).shifted ?? Number.NaN);
