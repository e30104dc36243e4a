import assert from "node:assert/strict";
import { test } from "node:test";
import type { Locator, Page } from "playwright-core";
import { assertAccessible } from "../accessible.ts";
import {
  live,
  notify,
  SUPERVISOR,
  send,
  signIn,
  titled,
  URL_OF_PAGE,
  URL_OF_SANDBOX,
  USERS,
  type User,
  until,
  waitForRead,
} from "../page.ts";
import { answerOf, openPushBrowser, type PushBrowser } from "../push-browser.ts";
import { isRunning, partOf } from "../stack.ts";

/** What the browser of the tests is called in the list. */
const CHROME = "Chrome on Linux";

interface Device {
  id: string;
  key_id: string;
  device_info: { device_name?: string };
}

/** Calls the API as the user would; the first demo user is left alone, who has demo devices. */
async function call<Answer>(user: User, method: string, path: string, body?: object) {
  const { token } = (await answerOf(`${URL_OF_PAGE}/demo/token`, "POST", {
    user_id: user.id,
  })) as { token: string };
  const response = await fetch(`${URL_OF_PAGE}/api/v1/notifications${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    ...(body && { body: JSON.stringify(body) }),
  });
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${await response.clone().text()}`);
  return (response.status === 204 ? undefined : await response.json()) as Answer;
}

const devicesOf = async (user: User): Promise<Device[]> =>
  (await call<{ items: Device[] }>(user, "GET", "/push/subscriptions")).items;

async function forgetDevices(user: User): Promise<void> {
  for (const { id } of await devicesOf(user)) {
    await call(user, "DELETE", `/push/subscriptions/${id}`);
  }
}

const waitForPushStatus = (user: User, id: string, status: string): Promise<void> =>
  until(`the push is ${status}`, async () => {
    const { delivery_status } = await call<{ delivery_status: { push?: string } }>(
      user,
      "GET",
      `/${id}`,
    );
    return delivery_status.push === status;
  });

async function openSheet(page: Page): Promise<Locator> {
  await page.getByRole("button", { name: /^Push notifications/ }).click();
  return page.getByRole("dialog", { name: "Push notifications" });
}

async function turnOn(page: Page): Promise<Locator> {
  const sheet = await openSheet(page);
  await sheet.getByRole("button", { name: "Turn on push on this device" }).click();
  await sheet.getByText("Push is on, on this device.").waitFor();
  return sheet;
}

/** A browser of `user` with push turned on, which is the only device. */
async function openOn(name: string, user: User): Promise<PushBrowser> {
  await forgetDevices(user);
  const opened = await openPushBrowser(name);
  await opened.permit("granted");
  await signIn(opened.page, user);
  await turnOn(opened.page);
  await opened.page.keyboard.press("Escape");
  return opened;
}

const device = (sheet: Locator, name: string) => sheet.getByRole("article", { name });

test("after an explanation and a click, pushes are shown, confirmed, and closed when read", async () => {
  const user = USERS.emmy;
  await forgetDevices(user);
  const { page, permit, relay, waitForShown, complaints } = await openPushBrowser("whole");
  await permit("prompt");
  await signIn(page, user);
  const sheet = await openSheet(page);
  await sheet.getByText("Your browser will ask").waitFor();
  await sheet.getByText("None yet.").waitFor();
  assert.deepEqual(await devicesOf(user), []);
  await permit("granted");
  await sheet.getByRole("button", { name: "Turn on push on this device" }).click();
  await sheet.getByText("Push is on, on this device.").waitFor();
  await device(sheet, CHROME).getByText("This device").waitFor();
  await page.keyboard.press("Escape");

  const [first, second] = [await send(user, "Pushed one"), await send(user, "Pushed two")];
  const payload = await relay(first);
  assert.equal(payload.title, "Pushed one");
  await waitForShown("Pushed one");
  await waitForPushStatus(user, first, "delivered");
  await relay(second);
  await waitForShown("Pushed one", "Pushed two");

  await titled(page, "Pushed one").hover();
  await titled(page, "Pushed one").getByRole("button", { name: "Mark as read" }).click();
  await waitForShown("Pushed two");
  await page.getByRole("button", { name: "Mark all as read" }).click();
  await waitForShown();
  assert.deepEqual(complaints, []);
});

test("the worker is served so that it can be updated, the manifest so that the page can be installed", async () => {
  const worker = await fetch(`${URL_OF_PAGE}/sw.js`);
  assert.equal(worker.headers.get("cache-control"), "no-cache");
  assert.match(worker.headers.get("content-type") ?? "", /^text\/javascript/);
  const { page } = await openPushBrowser("installing");
  await page.goto(URL_OF_PAGE);
  const link = await page.locator("link[rel=manifest]").getAttribute("href");
  const address = new URL(link ?? "", URL_OF_PAGE).href;
  const manifest = (await answerOf(address)) as { display: string; icons: { src: string }[] };
  assert.equal(manifest.display, "standalone");
  for (const { src } of manifest.icons) {
    const icon = await fetch(new URL(src, address));
    assert.equal(icon.headers.get("content-type"), "image/png");
  }
});

test("what was read elsewhere while no page was open is closed by the next", async () => {
  const user = USERS.emmy;
  const { page, relay, waitForShown } = await openOn("closed", user);
  const [read, unread] = [await send(user, "Read elsewhere"), await send(user, "Still unread")];
  await relay(read);
  await relay(unread);
  await waitForShown("Read elsewhere", "Still unread");
  await page.goto(`${URL_OF_PAGE}/readyz`);
  await call(user, "PATCH", `/${read}/read`);
  await page.goto(URL_OF_PAGE);
  await live(page);
  await waitForShown("Still unread");
});

test("a click leads to the notification on the page that is open, and marks it as read", async () => {
  const user = USERS.muhammad;
  const { page, relay, click, waitForShown } = await openOn("clicked", user);
  // The last one used, but no page of ours.
  const other = await page.context().newPage();
  await other.goto(`${URL_OF_PAGE}/readyz`);
  const id = await send(user, "Click me");
  await send(user, "Not me");
  await relay(id);
  await waitForShown("Click me");
  await click(id);
  await waitForShown();
  await waitForRead(page, "Click me");
  const focused = page.locator("article:focus");
  assert.equal(await focused.getByRole("heading").innerText(), "Click me");
  const { read_at } = await call<{ read_at: string | null }>(user, "GET", `/${id}`);
  assert.notEqual(read_at, null);
});

test("a click takes no page away: not to elsewhere, and not one that answers too late", async () => {
  const user = USERS.muhammad;
  const { page, relay, click, waitForShown } = await openOn("elsewhere", user);
  const elsewhere = await send(user, "Elsewhere", { action_url: "https://example.org/" });
  const late = await send(user, "Late", { action_url: "/readyz" });
  const last = await send(user, "In time");
  for (const id of [elsewhere, late, last]) await relay(id);
  await waitForShown("Elsewhere", "Late", "In time");
  await click(elsewhere);
  let letGo = () => {};
  const isOver = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  await page.route("**/held", (route) => isOver.then(() => route.fulfill()));
  const isHeld = page.waitForRequest("**/held");
  // It hears nothing while it waits for the answer.
  const held = page.evaluate(() => {
    const request = new XMLHttpRequest();
    request.open("GET", "/held", false);
    request.send();
  });
  await isHeld;
  await click(late);
  letGo();
  await held;
  await click(last);
  const focused = page.locator("article:focus");
  await focused.getByRole("heading", { name: "In time" }).waitFor();
  assert.equal(new URL(page.url()).pathname, "/");
});

test("the address in a push leads to the notification, though it is not on the first page", async () => {
  const user = USERS.muhammad;
  const { page } = await openPushBrowser("address");
  await forgetDevices(user);
  const id = await send(user, "Far down");
  for (let count = 0; count < 21; count++) await send(user, `Above ${count}`);
  await page.goto(`${URL_OF_PAGE}/?notification=${id}`);
  await page.getByRole("button", { name: user.name }).click();
  const sheet = page.getByRole("dialog", { name: "Far down" });
  await sheet.getByText("About Far down").waitFor();
  assert.equal(new URL(page.url()).search, "");
});

test("a push that cannot be read is shown all the same", async () => {
  const { deliver, waitForShown } = await openOn("unreadable", USERS.muhammad);
  await deliver("not what was agreed");
  await waitForShown("New notification");
});

test("a test is followed until it has arrived, or failed", async () => {
  const user = USERS.emmy;
  const { page, relay, click } = await openOn("tested", user);
  const sheet = await openSheet(page);
  const own = device(sheet, CHROME);
  const sent = page.waitForResponse((response) => response.url().endsWith("/test"));
  await own.getByRole("button", { name: "Send test" }).click();
  const { id } = (await (await sent).json()) as { id: string };
  await own.getByText("Sent, but not confirmed yet.").waitFor();
  await own.getByText("Last push").waitFor();
  await relay(id);
  await own.getByText("It has arrived.").waitFor();
  // The list is beneath the panel.
  await click(id);
  await page.getByRole("dialog", { name: "Test notification" }).waitFor();
  await page.keyboard.press("Escape");

  await fetch(`${URL_OF_SANDBOX}/push/browsers/tested`, { method: "DELETE" });
  await own.getByRole("button", { name: "Send test" }).click();
  await own.getByText("It could not be delivered.").waitFor();
});

test("a test is not said to have failed when the server cannot be asked for a while", async () => {
  const user = USERS.emmy;
  const { page, relay } = await openOn("unasked", user);
  const sheet = await openSheet(page);
  const own = device(sheet, CHROME);
  await page.route(/notifications\/[0-9a-f-]{36}$/, (route) => route.abort());
  const sent = page.waitForResponse((response) => response.url().endsWith("/test"));
  await own.getByRole("button", { name: "Send test" }).click();
  const { id } = (await (await sent).json()) as { id: string };
  const failed = page.waitForEvent("requestfailed");
  await relay(id);
  await failed;
  await own.getByText("On its way").waitFor();
  await page.unroute(/notifications\/[0-9a-f-]{36}$/);
  await own.getByText("It has arrived.").waitFor();
});

test("devices are removed after a question, this one and others", async () => {
  const user = USERS.muhammad;
  const { page } = await openOn("removing", user);
  const other = await answerOf(`${URL_OF_SANDBOX}/push/browsers/removed`, "PUT");
  const { endpoint, keys } = other as { endpoint: string; keys: object };
  await call(user, "POST", "/push/subscribe", {
    subscription: { endpoint, keys },
    device_info: { platform: "web", device_name: "Firefox on Windows" },
  });
  const sheet = await openSheet(page);
  const firefox = device(sheet, "Firefox on Windows");
  await firefox.getByRole("button", { name: "Remove" }).click();
  await page.keyboard.press("Escape");
  await firefox.getByRole("button", { name: "Remove" }).click();
  await page.keyboard.press("Enter");
  await firefox.waitFor({ state: "detached" });
  assert.deepEqual(await namesOf(user), [CHROME]);

  await device(sheet, CHROME).getByRole("button", { name: "Remove" }).click();
  await page.keyboard.press("Enter");
  await sheet.getByRole("button", { name: "Turn on push on this device" }).waitFor();
  await sheet.getByText("None yet.").waitFor();
  assert.deepEqual(await devicesOf(user), []);
  await page.reload();
  await live(page);
  await page.getByRole("button", { name: "Push notifications, off" }).waitFor();
  assert.deepEqual(await devicesOf(user), []);
});

const namesOf = async (user: User) =>
  (await devicesOf(user)).map(({ device_info }) => device_info.device_name);

test("signing out ends push to this device, and closes what it shows", async () => {
  const user = USERS.muhammad;
  const { page, relay, waitForShown } = await openOn("leaving", user);
  await relay(await send(user, "For me alone"));
  await waitForShown("For me alone");
  await page.getByRole("button", { name: "Sign out" }).click();
  await until("the device is gone", async () => (await devicesOf(user)).length === 0);
  await waitForShown();
});

test("a device that was removed elsewhere stays removed, and says so", async () => {
  const user = USERS.emmy;
  const { page } = await openOn("revoked", user);
  await forgetDevices(user);
  const sheet = await openSheet(page);
  await sheet.getByText("Push was turned off for this device.").waitFor();
  await sheet.getByText("None yet.").waitFor();
  await assertAccessible(page);
  await page.reload();
  await live(page);
  await page.getByRole("button", { name: "Push notifications, off" }).waitFor();
  assert.deepEqual(await devicesOf(user), []);
  await turnOn(page);
  assert.equal((await devicesOf(user)).length, 1);
});

test("what the browser has replaced is subscribed anew, and what failed meanwhile comes", async () => {
  const user = USERS.emmy;
  const { page, relay, waitForShown } = await openOn("replaced", user);
  const [before] = await devicesOf(user);
  await page.evaluate(async () => {
    const registration = await navigator.serviceWorker.getRegistration();
    await (await registration?.pushManager.getSubscription())?.unsubscribe();
  });
  const id = await send(user, "Not lost");
  await waitForPushStatus(user, id, "failed");
  await page.reload();
  await live(page);
  await until("the device is another", async () => {
    const [device] = await devicesOf(user);
    return device !== undefined && device.id !== before?.id;
  });
  await relay(id);
  await waitForShown("Not lost");
});

test("two tabs at once subscribe anew by themselves, once, when the key has rotated", async () => {
  const user = USERS.emmy;
  const { page, relay, waitForShown } = await openOn("rotated", user);
  const [before] = await devicesOf(user);
  await notify("vapid", "rotate");
  // The API keeps its keys for a while; a new process has the new one.
  const outgoing = partOf(SUPERVISOR, "api");
  process.kill(outgoing, "SIGTERM");
  // It still answers until it has ended.
  await until("the API has ended", () => !isRunning(outgoing));
  const isRotated = async () => {
    const path = "/push/vapid-public-key";
    const offered = await call<{ key_id: string }>(user, "GET", path).catch(() => undefined);
    return offered !== undefined && offered.key_id !== before?.key_id;
  };
  // Programs take long to start where much else runs.
  await until("the new key is offered", isRotated, 90_000);
  const posts: unknown[] = [];
  page.context().on("request", (request) => {
    if (request.url().endsWith("/push/subscribe")) posts.push(request.postDataJSON());
  });
  const second = await page.context().newPage();
  await Promise.all([page.reload().then(() => live(page)), signIn(second, user)]);
  await until("the device is another", async () => {
    const devices = await devicesOf(user);
    return devices.length === 1 && devices[0]?.key_id !== before?.key_id;
  });
  assert.deepEqual(
    posts.map((post) => (post as { replaces?: string }).replaces),
    [before?.id],
  );
  const id = await send(user, "By the new key");
  await relay(id);
  await waitForShown("By the new key");
});

test("who has blocked notifications is told how to allow them", async () => {
  const { page, permit } = await openPushBrowser("blocked");
  await permit("denied");
  await signIn(page, USERS.ada);
  const sheet = await openSheet(page);
  await sheet.getByText("Your browser blocks notifications from this site.").waitFor();
  assert.equal(await sheet.getByRole("button", { name: /Turn on/ }).count(), 0);
  await assertAccessible(page);
  await permit("granted");
  await sheet.getByRole("button", { name: "Turn on push on this device" }).waitFor();
});

/** Waits until the button is focused. */
const focused = (page: Page, name: string) =>
  until(`${name} is focused`, () =>
    page
      .getByRole("button", { name, exact: true })
      .evaluateAll((found) => found.includes(document.activeElement as never)),
  );

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing wrong in ${colorScheme}, and the keyboard is enough`, async () => {
    const user = USERS.muhammad;
    await forgetDevices(user);
    const options = { colorScheme, viewport: { width: 390, height: 844 } };
    const name = `keyboard-${colorScheme}`;
    const { page, permit } = await openPushBrowser(name, options as object);
    await permit("granted");
    await signIn(page, user);
    await page.getByRole("button", { name: "Push notifications, off" }).focus();
    await page.keyboard.press("Enter");
    const sheet = page.getByRole("dialog", { name: "Push notifications" });
    await sheet.getByText("None yet.").waitFor();
    await assertAccessible(page);
    await sheet.getByRole("button", { name: "Turn on push on this device" }).focus();
    await page.keyboard.press("Enter");
    await focused(page, "Turn off");
    const remove = device(sheet, CHROME).getByRole("button", { name: "Remove" });
    await remove.focus();
    await page.keyboard.press("Enter");
    await sheet.getByRole("button", { name: "Keep" }).waitFor();
    await assertAccessible(page);
    await page.keyboard.press("Escape");
    await focused(page, "Remove");
    await page.keyboard.press("Escape");
    await sheet.waitFor({ state: "detached" });
    await focused(page, "Push notifications, on");
  });
}
