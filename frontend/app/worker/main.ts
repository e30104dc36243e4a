/**
 * The service worker: shows what is pushed, tells the server what became of it, and leads clicks
 * to a page. It has no access token: the token in each push speaks for that push alone.
 */

import type { WorkerMessage } from "@notify/client/worker-message";
import { bodyOf, type Kept, keptIn, type PushData, readPush, targetOf } from "./message.ts";

declare const self: ServiceWorkerGlobalScope;

type Receipt = "delivered" | "clicked" | "closed";

const ACK = "/api/v1/notifications/push/ack";
const RETRY_MS = 2_000;
const REPORT_MS = 10_000;
/** A page that is there answers sooner; some browsers open no page later than a second. */
const ANSWER_MS = 500;

const site = self.location.origin;

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  const { maxActions = 0 } = Notification as { maxActions?: number };
  const { title, options, badge } = readPush(bodyOf(event as PushData), site, maxActions);
  const shown = self.registration
    .showNotification(title, options)
    .then(() => acknowledge(options.data, "delivered"));
  event.waitUntil(Promise.all([shown, setBadge(badge)]));
});

self.addEventListener("notificationclick", (event) => {
  const { notification, action } = event;
  const kept = keptIn(notification.data);
  notification.close();
  event.waitUntil(Promise.all([open(kept, action), acknowledge(kept, "clicked")]));
});

self.addEventListener("notificationclose", (event) => {
  event.waitUntil(acknowledge(keptIn(event.notification.data), "closed"));
});

self.addEventListener("pushsubscriptionchange", (event) => {
  event.waitUntil(subscribeAnew(event as SubscriptionChange));
});

interface SubscriptionChange extends ExtendableEvent {
  readonly oldSubscription?: PushSubscription | null;
  readonly newSubscription?: PushSubscription | null;
}

/** Lets a page that is open take the click, or opens one, as for what leads elsewhere. */
async function open(kept: Kept, button: string): Promise<void> {
  const url = targetOf(kept, button, site);
  const isHere = new URL(url).origin === site;
  const page = isHere && kept.id !== undefined ? await pageTaking(kept.id, url) : undefined;
  // The page has gone there already, so it does no harm when the browser does not focus it.
  if (page) await page.focus().catch(() => undefined);
  else await self.clients.openWindow(url);
}

/**
 * Asks the open pages, and lets one of those that offer to take it: the last one used.
 *
 * One that only answers later, as when it was frozen, is not let, and does nothing.
 */
async function pageTaking(id: string, url: string): Promise<WindowClient | undefined> {
  const isOver = new Promise<void>((resolve) => setTimeout(resolve, ANSWER_MS));
  const asked = (await pages()).map((page) => {
    const { port1, port2 } = new MessageChannel();
    const offered = new Promise<() => void>((resolve) => {
      port1.onmessage = () => resolve(() => port1.postMessage("take"));
    });
    page.postMessage({ type: "notify.open", id, url } satisfies WorkerMessage, [port2]);
    return { page, offered };
  });
  for (const { page, offered } of asked) {
    const take = await Promise.race([offered, isOver]);
    if (!take) continue;
    take();
    return page;
  }
  return undefined;
}

const pages = () => self.clients.matchAll({ type: "window", includeUncontrolled: true });

/**
 * Puts another subscription in the place of one that the browser has ended.
 *
 * The browser keeps it; the next page tells the server of it, as that takes a token, and takes
 * care that its key is the newest.
 */
async function subscribeAnew({ oldSubscription, newSubscription }: SubscriptionChange) {
  const applicationServerKey = oldSubscription?.options.applicationServerKey;
  if (!newSubscription && applicationServerKey) {
    const options = { userVisibleOnly: true, applicationServerKey };
    // What fails here is made up for by the next page as well.
    await self.registration.pushManager.subscribe(options).catch(() => undefined);
  }
  const message: WorkerMessage = { type: "notify.changed" };
  for (const page of await pages()) page.postMessage(message);
}

async function setBadge(count: number | undefined): Promise<void> {
  // Where there is no icon to put it at, it is refused.
  if (count !== undefined) await self.navigator.setAppBadge?.(count).catch(() => undefined);
}

/** Reports what became of a push; not to be waited for by what the user sees. */
async function acknowledge({ ackToken }: Kept, event: Receipt): Promise<void> {
  if (ackToken === undefined) return;
  const report = async () => {
    const { status } = await fetch(ACK, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ack_token: ackToken, event }),
      credentials: "omit",
      keepalive: true,
      signal: AbortSignal.timeout(REPORT_MS),
    });
    if (status >= 500) throw new Error(`The server answered with status ${status}.`);
  };
  await report()
    .catch(() => new Promise((resolve) => setTimeout(resolve, RETRY_MS)).then(report))
    // Without a network nobody can be told, and nobody here could do anything about it.
    .catch(() => undefined);
}
