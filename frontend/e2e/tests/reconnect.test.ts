import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  live,
  open,
  SUPERVISOR,
  send,
  signIn,
  titled,
  URL_OF_PAGE,
  USERS,
  unreadCount,
  waitForCount,
} from "../page.ts";
import { partOf } from "../stack.ts";

const user = USERS.emmy;

test("a killed server shows, and what was sent meanwhile appears once", async () => {
  const { page } = await open();
  await signIn(page, user);
  const count = await unreadCount(page);
  // Its socket stays down until the notification is stored, so that it has something to miss.
  let reachable = false;
  await page.routeWebSocket(/\/notifications\/ws$/, (socket) => {
    if (reachable) socket.connectToServer();
    else socket.close({ code: 1001 });
  });

  process.kill(partOf(SUPERVISOR, "api"), "SIGKILL");

  await page.getByRole("status").getByText("Reconnecting…").waitFor();
  await ready();
  await send(user, "Sent while you were away");
  assert.equal(await page.getByRole("status").getByText("Reconnecting…").count(), 1);
  reachable = true;
  await live(page);
  await titled(page, "Sent while you were away").waitFor();
  await waitForCount(page, count + 1);
  await page.waitForTimeout(1_500);
  assert.equal(await titled(page, "Sent while you were away").count(), 1);
  assert.equal(await unreadCount(page), count + 1);
});

test("without a network the page says so, and catches up when it returns", async () => {
  const { page } = await open();
  const network = await switchable(page);
  await signIn(page, user);
  const count = await unreadCount(page);

  await network.cut();
  await page.getByRole("status").getByText("Offline").waitFor();
  await send(user, "Sent while offline");
  await network.mend();

  await live(page);
  await titled(page, "Sent while offline").waitFor();
  await waitForCount(page, count + 1);
});

test("thirty that are sent while offline show once each, in order", async () => {
  const { page } = await open();
  const network = await switchable(page);
  await signIn(page, user);
  const count = await unreadCount(page);

  await network.cut();
  await page.getByRole("status").getByText("Offline").waitFor();
  const titles = Array.from({ length: 30 }, (_, index) => `Missed ${index + 1}`);
  for (const title of titles) await send(user, title);
  await network.mend();

  await live(page);
  await waitForCount(page, count + 30);
  const shown = await page.getByRole("article").getByRole("heading").allTextContents();
  const expected = titles.toReversed().map((title) => `Unread: ${title}`);
  assert.deepEqual(shown.slice(0, 30), expected);
  assert.deepEqual(
    shown.filter((title) => expected.includes(title)),
    expected,
  );
});

/** The page's network, to be cut and mended; call it before signing in. */
async function switchable(page: Page) {
  let online = true;
  let close: () => Promise<void> = async () => undefined;
  await page.routeWebSocket(/\/notifications\/ws$/, (socket) => {
    close = () => socket.close({ code: 1001 });
    if (online) socket.connectToServer();
    else void close();
  });
  return {
    async cut() {
      online = false;
      await page.context().setOffline(true);
      // Chromium's switch leaves open sockets alone; a real network would not.
      await close();
    },
    async mend() {
      online = true;
      await page.context().setOffline(false);
    },
  };
}

async function ready(): Promise<void> {
  for (;;) {
    const answer = await fetch(`${URL_OF_PAGE}/readyz`).catch(() => undefined);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
