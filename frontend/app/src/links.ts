import type { Notification } from "@notify/client";
import { safeHref } from "./safe-href.ts";

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
