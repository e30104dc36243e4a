import type { Notification } from "@notify/client";

export interface Link {
  label: string;
  href: string;
  /** Its place among the notification's actions, by which a click is reported. */
  index?: number;
}

export interface Answer {
  label: string;
  /** The action's name. */
  action: string;
  isPrimary: boolean;
}

const MAX_ADDRESS = 2_048;

/** Invisible, turned around, or read by browsers as something else, as a backslash is. */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  /[\x00-\x1f\x7f-\x9f\\\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^\s|\s$/;
/** No userinfo: `https://bank.example@evil.example` leads to the second. */
const SECURE = /^https:\/\/(?:\[[0-9a-f:.]+\]|[^\s/?#@:[\]<>"^`{|}%]+)(?::[0-9]{1,5})?(?:[/?#]|$)/i;
const RELATIVE = /^(?:\/(?!\/)|[?#])/;

/** `address` if a button may lead there, by the server's own rule: this site, or https. */
export function safeHref(address: unknown): string | undefined {
  if (typeof address !== "string" || address.length > MAX_ADDRESS) return undefined;
  if (UNSAFE.test(address)) return undefined;
  return RELATIVE.test(address) || SECURE.test(address) ? address : undefined;
}

/** The buttons of a notification's `data`, as the server numbers them. */
function buttonsOf({ data }: Pick<Notification, "data">): Record<string, unknown>[] {
  const { actions } = data as { actions?: unknown };
  const isObject = (action: unknown): action is Record<string, unknown> =>
    typeof action === "object" && action !== null && !Array.isArray(action);
  return Array.isArray(actions) ? actions.filter(isObject) : [];
}

/** Where a notification leads: its actions that have an address, else `action_url`. */
export function linksOf(item: Pick<Notification, "data">): Link[] {
  const named = buttonsOf(item).flatMap(({ label, url }, index): Link[] => {
    const href = safeHref(url);
    return typeof label === "string" && href !== undefined ? [{ label, href, index }] : [];
  });
  if (named.length > 0) return named;
  const href = safeHref((item.data as { action_url?: unknown }).action_url);
  return href === undefined ? [] : [{ label: "Open", href }];
}

/** What can be answered to a notification: its actions that have a name. */
export const answersOf = (item: Pick<Notification, "data">): Answer[] =>
  buttonsOf(item).flatMap(({ label, action, primary }): Answer[] =>
    typeof label === "string" && typeof action === "string"
      ? [{ label, action, isPrimary: primary === true }]
      : [],
  );
