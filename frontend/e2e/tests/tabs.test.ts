import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrowserContext, Page } from "playwright-core";
import {
  live,
  newContext,
  openIn,
  send,
  signIn,
  titled,
  USERS,
  type User,
  until,
  waitForRead,
} from "../page.ts";

const user = USERS.emmy;

/** Runs in each page: keeps what sockets it has made. */
function keepSockets() {
  const made: WebSocket[] = [];
  const Native = WebSocket;
  Object.assign(window, {
    made,
    WebSocket: class extends Native {
      constructor(url: string | URL) {
        super(url);
        made.push(this);
      }
    },
  });
}

/** How many sockets the page has that are not closed. */
const socketsOf = (page: Page): Promise<number> =>
  page.evaluate(() => {
    const { made = [] } = window as { made?: WebSocket[] };
    return made.filter(({ readyState }) => readyState <= WebSocket.OPEN).length;
  });

async function sockets(pages: readonly Page[]): Promise<number> {
  const counts = await Promise.all(pages.map(socketsOf));
  return counts.reduce((sum, count) => sum + count, 0);
}

async function browserContext(): Promise<BrowserContext> {
  const context = await newContext();
  await context.addInitScript(keepSockets);
  return context;
}

async function openTab(context: BrowserContext, who: User = user): Promise<Page> {
  const { page } = await openIn(context);
  await signIn(page, who);
  return page;
}

async function openTabs(count: number): Promise<Page[]> {
  const context = await browserContext();
  const pages: Page[] = [];
  for (let opened = 0; opened < count; opened++) pages.push(await openTab(context));
  return pages;
}

/** The tab with the socket, and the others. */
async function led(pages: readonly Page[]): Promise<[Page, Page[]]> {
  for (const page of pages) {
    if ((await socketsOf(page)) > 0) return [page, pages.filter((other) => other !== page)];
  }
  throw new Error("no tab has a socket");
}

const handover = (pages: readonly Page[]): Promise<void> =>
  timed(
    "handed over",
    until("another tab has the socket", async () => (await sockets(pages)) === 1),
  );

/** Prints how long `wait` took: what is told, but not asserted, as this machine may be busy. */
async function timed(what: string, wait: Promise<unknown>): Promise<void> {
  const began = performance.now();
  await wait;
  process.stdout.write(`${what}: ${Math.round(performance.now() - began)} ms\n`);
}

const topTitles = async (page: Page, count: number): Promise<string[]> =>
  (await page.getByRole("article").getByRole("heading").allTextContents()).slice(0, count);

test("tabs share one socket, and all show what arrives, in order", async () => {
  const pages = await openTabs(3);
  assert.equal(await sockets(pages), 1);
  const titles = ["One", "Two", "Three"].map((number) => `Shared ${number}`);
  for (const title of titles) await send(user, title);
  const shown = titles.toReversed().map((title) => `Unread: ${title}`);
  for (const page of pages) {
    await titled(page, "Shared Three").waitFor();
    assert.deepEqual(await topTitles(page, 3), shown);
  }
  assert.equal(await sockets(pages), 1);
});

test("what is read in one tab shows in the others, wherever the socket is", async () => {
  const pages = await openTabs(3);
  for (const [number, page] of pages.entries()) {
    const title = `Read in tab ${number}`;
    await send(user, title);
    for (const other of pages) await waitForRead(other, title, false);
    const place = (await socketsOf(page)) > 0 ? "with" : "without";
    await titled(page, title).hover();
    await titled(page, title).getByRole("button", { name: "Mark as read" }).click();
    const shown = Promise.all(pages.map((other) => waitForRead(other, title)));
    await timed(`read in a tab ${place} the socket`, shown);
  }
});

test("another tab takes over when the one with the socket closes", async () => {
  const [leader, others] = await led(await openTabs(3));
  const closing = leader.close();
  await send(user, "Sent while the socket moved");
  await handover(others);
  await closing;
  for (const page of others) {
    await live(page);
    await titled(page, "Sent while the socket moved").waitFor();
    assert.equal(await titled(page, "Sent while the socket moved").count(), 1);
  }
  assert.equal(await sockets(others), 1);
});

test("a tab that leaves the page hands over, and follows when it comes back", async () => {
  const [leader, others] = await led(await openTabs(2));
  await leader.goto("about:blank");
  await handover(others);
  await send(user, "Sent while one was away");
  for (const page of others) await titled(page, "Sent while one was away").waitFor();
  await leader.goBack();
  await titled(leader, "Sent while one was away").waitFor();
  await live(leader);
  assert.equal(await sockets([leader, ...others]), 1);
});

test("a tab that is told of its freezing hands over, and follows when it resumes", async () => {
  const [leader, others] = await led(await openTabs(2));
  // Headless tabs count as looked at and cannot be frozen, so the event is all there is of it.
  const tell = (event: string) =>
    leader.evaluate((type) => document.dispatchEvent(new Event(type)), event);
  await tell("freeze");
  await handover(others);
  await send(user, "Sent while one was frozen");
  for (const page of others) await titled(page, "Sent while one was frozen").waitFor();
  assert.equal(await titled(leader, "Sent while one was frozen").count(), 0);
  await tell("resume");
  await titled(leader, "Sent while one was frozen").waitFor();
  await live(leader);
  assert.equal(await sockets([leader, ...others]), 1);
});

test("users who are signed in side by side share nothing", async () => {
  const context = await browserContext();
  const [first, second] = [await openTab(context), await openTab(context, USERS.ada)];
  assert.deepEqual([await socketsOf(first), await socketsOf(second)], [1, 1]);
  await send(user, "For Emmy alone");
  await titled(first, "For Emmy alone").waitFor();
  assert.equal(await titled(second, "For Emmy alone").count(), 0);
});
