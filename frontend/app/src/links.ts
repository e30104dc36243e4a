import type { InboxItem } from "@notify/client";

export interface Link {
  label: string;
  href: string;
}

const SCHEMES = ["http:", "https:", "mailto:"];

/** `address` if following it leads somewhere and runs nothing, such as `javascript:` would. */
export function safeHref(address: unknown): string | undefined {
  if (typeof address !== "string" || !URL.canParse(address, location.origin)) return undefined;
  return SCHEMES.includes(new URL(address, location.origin).protocol) ? address : undefined;
}

/** Where a notification's `data` leads: its actions that have an address, else `action_url`. */
export function linksOf({ data }: Pick<InboxItem, "data">): Link[] {
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
