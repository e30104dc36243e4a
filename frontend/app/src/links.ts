import type { Notification } from "@notify/client";

export interface Link {
  label: string;
  href: string;
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

/** Where a notification's `data` leads: its actions that have an address, else `action_url`. */
export function linksOf({ data }: Pick<Notification, "data">): Link[] {
  const { actions, action_url } = data as { actions?: unknown; action_url?: unknown };
  const named = (Array.isArray(actions) ? actions : []).flatMap((action: unknown): Link[] => {
    const { label, url } = (action ?? {}) as { label?: unknown; url?: unknown };
    const href = safeHref(url);
    return typeof label === "string" && href !== undefined ? [{ label, href }] : [];
  });
  if (named.length > 0) return named;
  const href = safeHref(action_url);
  return href === undefined ? [] : [{ label: "Open", href }];
}
