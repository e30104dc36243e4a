/**
 * A browser that is pushed to, as far as a closed network lets it be.
 *
 * The sandbox stands in for the browser's push service: the page's subscription is one of a sandbox
 * browser, and what that has received and decrypted is handed to the real service worker.
 */

import type { BrowserContextOptions, CDPSession, Page } from "playwright-core";
import { newContext, type Opened, openIn, URL_OF_PAGE, URL_OF_SANDBOX, until } from "./page.ts";

interface Payload {
  title: string;
  tag: string;
}

export interface PushBrowser extends Opened {
  /** Waits for the push of the notification, hands it to the service worker, and lets it be shown. */
  relay(id: string): Promise<Payload>;
  /** Hands any text to the service worker as if it had been pushed, and lets it be shown. */
  deliver(text: string): Promise<void>;
  /** Waits until the notifications with these titles are shown, and no others. */
  waitForShown(...titles: string[]): Promise<void>;
  /** Clicks a shown notification, or one of its buttons. */
  click(id: string, button?: string): Promise<void>;
  permit(setting: "granted" | "denied" | "prompt"): Promise<void>;
}

/** @param name of the sandbox browser; one for each test. */
export async function openPushBrowser(
  name: string,
  options: BrowserContextOptions = {},
): Promise<PushBrowser> {
  const context = await newContext(options);
  const address = `${URL_OF_SANDBOX}/push/browsers/${name}`;
  let held: object | null = null;
  const sandbox: SandboxBrowser = {
    async subscribeInSandbox(key) {
      held = {
        key,
        ...((await answerOf(address, "PUT", { application_server_key: key })) as object),
      };
    },
    async unsubscribeInSandbox() {
      await fetch(address, { method: "DELETE" });
      held = null;
    },
    subscriptionInSandbox: async () => held as Held | null,
  };
  for (const [called, call] of Object.entries(sandbox)) await context.exposeFunction(called, call);
  await context.addInitScript(standInForPushService);
  const opened = await openIn(context);
  const { page } = opened;
  const session = await context.newCDPSession(page);
  const registration = registrationIn(session);
  await session.send("ServiceWorker.enable");
  const { browserContextId } = (await session.send("Target.getTargetInfo")).targetInfo;

  async function deliver(text: string) {
    const registrationId = await registration;
    const worker = context.serviceWorkers()[0] ?? (await context.waitForEvent("serviceworker"));
    const next = await worker.evaluateHandle(awaitNext);
    await session.send("ServiceWorker.deliverPushMessage", {
      origin: URL_OF_PAGE,
      registrationId,
      data: text,
    });
    // Chromium forgets what it is about to show when it is asked what it shows at the same time.
    await next.evaluate(({ isShown }) => isShown);
  }

  return {
    ...opened,
    deliver,
    async relay(id) {
      const payload = await pushed(name, id);
      await deliver(JSON.stringify(payload));
      return payload.notification;
    },
    async waitForShown(...titles) {
      const wanted = titles.toSorted().join();
      let shown = "";
      const isWanted = async () => {
        shown = (await shownOn(page)).toSorted().join();
        return shown === wanted;
      };
      await until(() => `“${wanted}” is shown instead of “${shown}”`, isWanted);
    },
    async click(id, button = "") {
      const [worker] = context.serviceWorkers();
      await worker?.evaluate(clickOn, { id, button });
    },
    async permit(setting) {
      await session.send("Browser.setPermission", {
        permission: { name: "notifications" },
        setting,
        origin: URL_OF_PAGE,
        ...(browserContextId && { browserContextId }),
      });
    },
  };
}

/** The id of the page's service worker registration, once it is there. */
const registrationIn = (session: CDPSession): Promise<string> =>
  new Promise((resolve) => {
    session.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => {
      const [found] = registrations.filter(({ isDeleted }) => !isDeleted);
      if (found) resolve(found.registrationId);
    });
  });

/** What the sandbox browser has decrypted of the push of a notification, waited for. */
async function pushed(name: string, id: string): Promise<{ notification: Payload }> {
  const url = `${URL_OF_SANDBOX}/push/messages?device=${name}`;
  let found: { notification: Payload } | undefined;
  await until(`${id} is pushed to ${name}`, async () => {
    const { items } = (await answerOf(url)) as { items: { payload: typeof found }[] };
    found = items.map(({ payload }) => payload).find((it) => it?.notification.tag === id);
    return found !== undefined;
  });
  if (!found) throw new Error("unreachable");
  return found;
}

export async function answerOf(url: string, method = "GET", body?: object): Promise<unknown> {
  const response = await fetch(url, {
    method,
    ...(body && {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    }),
  });
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status}`);
  return response.json();
}

const shownOn = (page: Page): Promise<string[]> =>
  page.evaluate(async () => {
    const registration = await navigator.serviceWorker.getRegistration();
    return ((await registration?.getNotifications()) ?? []).map(({ title }) => title);
  });

/** Runs in the worker: waits for what it shows next to be shown. */
function awaitNext(): { isShown: Promise<void> } {
  const { registration } = globalThis as unknown as { registration: ServiceWorkerRegistration };
  const { showNotification } = registration;
  const isShown = new Promise<void>((resolve, reject) => {
    registration.showNotification = (...shown) => {
      registration.showNotification = showNotification;
      const showing = showNotification.apply(registration, shown);
      showing.then(resolve, reject);
      return showing;
    };
  });
  return { isShown };
}

/** Runs in the worker: what the browser does when the user clicks, but for letting it open windows. */
async function clickOn({ id, button }: { id: string; button: string }): Promise<void> {
  const worker = globalThis as unknown as {
    registration: ServiceWorkerRegistration;
    NotificationEvent: new (type: string, options: object) => Event;
    dispatchEvent(event: Event): void;
  };
  const [notification] = await worker.registration.getNotifications({ tag: id });
  const event = new worker.NotificationEvent("notificationclick", { notification, action: button });
  const pending: Promise<unknown>[] = [];
  // Only events of the browser itself may be waited for.
  Object.defineProperty(event, "waitUntil", {
    value: (promise: Promise<unknown>) => pending.push(promise),
  });
  worker.dispatchEvent(event);
  await Promise.allSettled(pending);
}

/** A subscription of the sandbox browser, and the key it was made with. */
interface Held {
  key: string;
  endpoint: string;
  expirationTime: null;
  keys: { p256dh: string; auth: string };
}

interface SandboxBrowser {
  subscribeInSandbox(key: string): Promise<void>;
  unsubscribeInSandbox(): Promise<void>;
  subscriptionInSandbox(): Promise<Held | null>;
}

/** Runs in each page: its subscriptions are the sandbox browser's. */
function standInForPushService() {
  const sandbox = window as unknown as SandboxBrowser;
  const bytesOf = (base64url: string) =>
    Uint8Array.from(atob(base64url.replaceAll("-", "+").replaceAll("_", "/")), (character) =>
      character.charCodeAt(0),
    );

  async function getSubscription() {
    const held = await sandbox.subscriptionInSandbox();
    if (!held) return null;
    const { key, endpoint, expirationTime, keys } = held;
    return {
      endpoint,
      options: { applicationServerKey: bytesOf(key).buffer, userVisibleOnly: true },
      toJSON: () => ({ endpoint, expirationTime, keys }),
      unsubscribe: async () => {
        await sandbox.unsubscribeInSandbox();
        return true;
      },
    };
  }

  async function subscribe({ applicationServerKey }: { applicationServerKey: Uint8Array }) {
    const key = btoa(String.fromCharCode(...applicationServerKey));
    const base64url = key.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    await sandbox.subscribeInSandbox(base64url);
    return getSubscription();
  }

  Object.assign(PushManager.prototype, { getSubscription, subscribe });
}
