import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  live,
  MOVING,
  open,
  send,
  signIn,
  titled,
  URL_OF_PAGE,
  USERS,
  unreadCount,
  waitForCount,
  waitForRead,
} from "../page.ts";

const user = USERS.ada;

async function press(page: Page, title: string, name: string): Promise<void> {
  await titled(page, title).hover();
  await titled(page, title).getByRole("button", { name }).click();
}

/** Waits until it is said to who listens. */
const announced = (page: Page, text: string | RegExp): Promise<void> =>
  page.getByTestId("announcer").getByText(text).last().waitFor();

const focused = (page: Page): Promise<string | null> =>
  page.evaluate(() => document.activeElement?.querySelector("h2")?.dataset["title"] ?? null);

test("reading, unreading and deleting show in every window and last", async () => {
  const [here, there] = await Promise.all([open(MOVING), open(MOVING)]);
  await Promise.all([signIn(here.page, user), signIn(there.page, user)]);
  const count = await unreadCount(here.page);
  await send(user, "To be changed");
  for (const { page } of [here, there]) await waitForCount(page, count + 1);

  await press(here.page, "To be changed", "Mark as read");
  for (const { page } of [here, there]) {
    await waitForRead(page, "To be changed");
    await waitForCount(page, count);
  }
  await press(there.page, "To be changed", "Mark as unread");
  for (const { page } of [here, there]) {
    await waitForRead(page, "To be changed", false);
    await waitForCount(page, count + 1);
  }
  await press(here.page, "To be changed", "Delete");
  for (const { page } of [here, there]) {
    await titled(page, "To be changed").waitFor({ state: "detached" });
    await waitForCount(page, count);
  }
  await here.page.reload();
  await live(here.page);
  await waitForCount(here.page, count);
  assert.equal(await titled(here.page, "To be changed").count(), 0);
  assert.deepEqual([...here.complaints, ...there.complaints], []);
});

test("a change that fails is taken back, says why, and can be tried again", async () => {
  const { page } = await open();
  await signIn(page, user);
  await send(user, "Stays for now");
  await titled(page, "Stays for now").waitFor();
  const count = await unreadCount(page);
  const error = { code: "unavailable", message: "The inbox is busy." };
  await page.route("**/api/v1/notifications/*", (route) =>
    route.request().method() === "DELETE"
      ? route.fulfill({ status: 503, json: { error, correlation_id: "c1" } })
      : route.continue(),
  );
  await press(page, "Stays for now", "Delete");
  const alert = page.getByRole("alert").filter({ hasText: "could not be deleted" });
  await alert.getByText("“Stays for now” could not be deleted. The inbox is busy.").waitFor();
  await titled(page, "Stays for now").waitFor();
  await waitForCount(page, count);
  await page.unroute("**/api/v1/notifications/*");
  await alert.getByRole("button", { name: "Try again" }).click();
  await titled(page, "Stays for now").waitFor({ state: "detached" });
  await waitForCount(page, count - 1);
  assert.equal(await alert.count(), 0);
});

test("following a link marks as read, even where it leaves the page", async () => {
  const { page } = await open();
  await signIn(page, user);
  await send(user, "Leads away", { action_url: "/healthz" });
  await titled(page, "Leads away").getByRole("link", { name: "Open" }).click();
  await page.waitForURL("**/healthz");
  await page.goto(URL_OF_PAGE);
  await live(page);
  await waitForRead(page, "Leads away");
});

test("a notification can be answered, and says what came of it", async () => {
  const { page } = await open();
  await signIn(page, user);
  const actions = [
    { label: "Accept", action: "accept", primary: true },
    { label: "Decline", action: "decline" },
    { label: "Look", url: "#looked" },
    { label: "Dismiss", action: "dismiss" },
  ];
  await send(user, "Can be answered", { actions });
  const card = titled(page, "Can be answered");
  await page.route("**/actions/decline", (route) => route.abort());
  await card.getByRole("button", { name: "Decline" }).click();
  await card.getByText("Not sent. The server could not be reached.").waitFor();
  await page.unroute("**/actions/decline");
  for (const status of ["pending", "failed"]) {
    await page.route("**/actions/decline", (route) =>
      route.fulfill({ json: { action: "decline", status, result: null } }),
    );
    await card.getByRole("button", { name: "Decline" }).click();
    await card.locator(`.answer__state[data-status="${status}"]`).waitFor();
    await page.unroute("**/actions/decline");
  }
  await waitForRead(page, "Can be answered", false);
  await card.getByRole("button", { name: "Accept" }).click();
  await announced(page, "Accept: Done");
  await waitForRead(page, "Can be answered");
  const reported = page.waitForResponse(/\/actions\/2$/);
  await card.getByRole("link", { name: "Look" }).click();
  assert.deepEqual(await (await reported).json(), {
    action: "2",
    status: "completed",
    result: { url: "#looked" },
  });
  await card.getByRole("button", { name: "Dismiss" }).click();
  await card.waitFor({ state: "detached" });
});

test("what is unread can be shown alone and read all at once", async () => {
  const reader = USERS.emmy;
  const { page, complaints } = await open();
  await signIn(page, reader);
  await send(reader, "Unread one");
  await send(reader, "Unread two");
  await announced(page, /2 new notifications|Unread two/);
  await press(page, "Unread one", "Mark as read");
  const show = (name: string) => page.getByRole("button", { name, exact: true }).click();
  await show("Unread");
  await titled(page, "Unread one").waitFor({ state: "detached" });
  await titled(page, "Unread two").waitFor();
  const markAll = page.getByRole("button", { name: "Mark all as read" });
  await markAll.click();
  await page.getByText("Nothing unread").waitFor();
  await waitForCount(page, 0);
  assert.equal(await markAll.getAttribute("aria-disabled"), "true");
  await announced(page, "All marked as read");
  await send(reader, "Unread three");
  await waitForRead(page, "Unread three", false);
  await show("All");
  await waitForRead(page, "Unread two");
  assert.deepEqual(complaints, []);
});

test("the keyboard is enough to go through the cards and to change them", async () => {
  const { page } = await open(MOVING);
  await signIn(page, user);
  for (const title of ["Third card", "Second card", "First card"]) await send(user, title);
  await announced(page, /3 new notifications|First card/);
  await page.keyboard.press("j");
  assert.equal(await focused(page), "First card");
  await page.keyboard.press("ArrowDown");
  assert.equal(await focused(page), "Second card");
  await page.keyboard.press("r");
  await waitForRead(page, "Second card");
  await page.keyboard.press("r");
  await waitForRead(page, "Second card", false);
  await page.keyboard.press("#");
  await titled(page, "Second card").waitFor({ state: "detached" });
  assert.equal(await focused(page), "Third card");
  await page.keyboard.press("k");
  await page.keyboard.press("Delete");
  await titled(page, "First card").waitFor({ state: "detached" });
  assert.equal(await focused(page), "Third card");
  await announced(page, "Deleted: First card");

  await page.keyboard.press("?");
  const help = page.getByRole("dialog", { name: "Keys" });
  await help.getByRole("checkbox", { name: "Listen to single keys" }).uncheck();
  await page.keyboard.press("Escape");
  await titled(page, "Third card").focus();
  await page.keyboard.press("r");
  await page.keyboard.press("Delete");
  await titled(page, "Third card").waitFor({ state: "detached" });
  await announced(page, "Deleted: Third card");
});

test("reading moves nothing by jumping", async () => {
  const { page } = await open({ ...MOVING, viewport: { width: 390, height: 844 } });
  await signIn(page, user);
  await send(user, "A title whose length lets it wrap sooner or later as it gets bolder");
  const title = /^Unread: A title whose length/;
  await page.getByRole("article", { name: title }).waitFor();
  await page.waitForTimeout(1_000);
  await page.evaluate(() => {
    const page = Object.assign(window, { shifted: 0 });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        page.shifted += (entry as PerformanceEntry & { value: number }).value;
      }
    }).observe({ type: "layout-shift" });
  });
  await page.keyboard.press("j");
  await page.keyboard.press("r");
  await page.getByRole("article", { name: /^A title whose length/ }).waitFor();
  await page.waitForTimeout(300);
  assert.equal(await page.evaluate(() => (window as { shifted?: number }).shifted), 0);
});
