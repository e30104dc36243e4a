/** Reads what was pushed, and says what to show and where its clicks lead. */

import { safeHref } from "../src/safe-href.ts";

/** What a shown notification keeps for its clicks. */
export interface Kept {
  /** Of the notification; absent when the message could not be read. */
  id?: string;
  ackToken?: string;
  /** Where a click leads; absent: to the notification's own place on the page. */
  navigate?: string;
  /** Where the buttons lead, by their place; `null`: to the notification. */
  buttons: readonly (string | null)[];
}

/** Options that browsers know and TypeScript's own description does not. */
export interface ShowOptions extends NotificationOptions {
  actions?: { action: string; title: string }[];
  renotify?: boolean;
  data: Kept;
}

export interface PushMessage {
  title: string;
  options: ShowOptions;
  /** The count at the icon of the page; absent: as it is. */
  badge?: number;
}

type Fields = Record<string, unknown>;

/** What a push event brings: bytes, or, where the browser knows the shape, what they describe. */
export interface PushData {
  readonly data: { text(): string } | null;
  readonly notification?: object | null;
  readonly appBadge?: number | null;
}

const MAX_TITLE = 300;
const MAX_BODY = 4_000;
const ICONS = { icon: "/assets/icon-192.png", badge: "/assets/badge-96.png" };

/** What is shown of a message that cannot be read: browsers forbid to show nothing. */
const UNREADABLE: PushMessage = {
  title: "New notification",
  options: { body: "Open Notify to see it.", data: { buttons: [] }, ...ICONS },
};

/** The body of a push: Safari has read a declarative one, and brings no bytes then. */
export const bodyOf = ({ data, notification, appBadge }: PushData): Fields =>
  notification ? { notification, app_badge: appBadge } : parsed(data?.text() ?? "");

/** What a shown notification keeps, though the browser may have shown it by itself. */
export const keptIn = (data: unknown): Kept => ({ buttons: [], ...fieldsOf(data) });

/**
 * Says what to show of the decrypted body of a push.
 *
 * @param site origin of this worker.
 * @param maxButtons how many buttons the browser shows.
 */
export function readPush(body: Fields, site: string, maxButtons: number): PushMessage {
  const shown = fieldsOf(body["notification"]);
  const { title, tag, lang, silent } = shown;
  if (typeof title !== "string" || title === "") return UNREADABLE;
  const data = fieldsOf(shown["data"]);
  const buttons = buttonsOf(data["actions"]);
  const navigate = addressOf(shown["navigate"], site);
  const { id, ack_token: ackToken } = data;
  const badge = body["app_badge"];
  return {
    title: title.slice(0, MAX_TITLE),
    options: {
      ...ICONS,
      ...(typeof shown["body"] === "string" && { body: shown["body"].slice(0, MAX_BODY) }),
      // The same notification once more takes the place of the first, without a sound.
      ...(isText(tag) && { tag, renotify: false }),
      ...(isText(lang) && { lang }),
      silent: silent === true,
      actions: buttons
        .map(({ title }, place) => ({ action: String(place), title }))
        .slice(0, maxButtons),
      data: {
        ...(isText(id) && { id }),
        ...(isText(ackToken) && { ackToken }),
        ...(navigate !== undefined && { navigate }),
        buttons: buttons.map(({ url }) => addressOf(url, site) ?? null),
      },
    },
    ...(isCount(badge) && { badge }),
  };
}

/**
 * Where a click leads, absolute.
 *
 * @param button the clicked one, by its place; empty for the notification itself.
 */
export function targetOf({ id, navigate, buttons }: Kept, button: string, site: string): string {
  const home = new URL(id === undefined ? "/" : `/?notification=${encodeURIComponent(id)}`, site);
  if (button === "") return navigate ?? home.href;
  return buttons[Number(button)] ?? home.href;
}

/** `address`, absolute, if a click may lead there: this site, or https. */
function addressOf(address: unknown, site: string): string | undefined {
  if (typeof address !== "string") return undefined;
  const isOwn = address === site || address.startsWith(`${site}/`);
  const href = safeHref(isOwn ? address.slice(site.length) || "/" : address);
  return href === undefined ? undefined : new URL(href, site).href;
}

function buttonsOf(actions: unknown): { title: string; url: unknown }[] {
  if (!Array.isArray(actions)) return [];
  return actions
    .map(fieldsOf)
    .flatMap(({ label, url }) => (isText(label) ? [{ title: label, url }] : []));
}

function parsed(text: string): Fields {
  try {
    return fieldsOf(JSON.parse(text));
  } catch {
    return {};
  }
}

const fieldsOf = (value: unknown): Fields =>
  typeof value === "object" && value !== null ? (value as Fields) : {};
const isText = (value: unknown): value is string => typeof value === "string" && value !== "";
const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0;
