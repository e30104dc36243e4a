/**
 * What a client holds of an inbox, and how pages and messages change it.
 *
 * The rule everything here keeps: a page fetched earlier plus the messages since equals a page
 * fetched now. Counts are absolute and always the server's. `seq` numbers every change, so what
 * arrives twice or late is recognised by its number.
 */

import type { Notification, NotificationPage } from "./api.ts";
import type { Authenticated, InboxMessage, ServerMessage } from "./protocol.ts";

/** A notification and its place: the `seq` at which it became visible, which never changes. */
export type InboxItem = Notification & { readonly position: number };

export interface Inbox {
  /** Newest first. */
  readonly items: readonly InboxItem[];
  readonly unreadCount: number;
  /** Unread by type, zeros left out; `null` until the server has told. */
  readonly byType: Readonly<Record<string, number>> | null;
  /** Every change up to this one is reflected in `items`; `undefined` before the first page. */
  readonly seq: number | undefined;
  /** The change told last without leaving one out: `seq`, or the next, of which more may follow. */
  readonly begun: number;
  /** Between `authenticated` and `sync_complete`, when numbers may be left out. */
  readonly syncing: boolean;
  /** The change the counts were taken at. */
  readonly countSeq: number;
  /** Where the next older page starts; `null` when everything is held. */
  readonly cursor: string | null;
  /** Place of the oldest item of the pages held; older ones come with their page. */
  readonly floor: number;
}

export const EMPTY_INBOX: Inbox = {
  items: [],
  unreadCount: 0,
  byType: null,
  seq: undefined,
  begun: 0,
  syncing: false,
  countSeq: -1,
  cursor: null,
  floor: 0,
};

/** Applies one message; answers the same object when the message says nothing new. */
export function applyMessage(inbox: Inbox, message: ServerMessage): Inbox {
  switch (message.type) {
    case "authenticated":
      return { ...counted(inbox, message.seq, message.unread_count), syncing: true };
    case "sync_complete": {
      const seq = Math.max(inbox.seq ?? 0, message.seq);
      return { ...inbox, syncing: false, seq, begun: seq };
    }
    case "unread_count": {
      if (message.seq < inbox.countSeq) return inbox;
      const told = { ...counted(inbox, message.seq, message.count), byType: message.by_type };
      return completed(told, message.seq);
    }
    case "pong":
      return completed(inbox, message.seq);
    case "notification":
    case "read_status_updated":
    case "notification_deleted":
      return message.seq < (inbox.seq ?? 0) ? inbox : changed(inbox, message);
    default:
      return inbox;
  }
}

/** The stream of messages begins anew at `message`: what came before it was not seen. */
export function restartAt(inbox: Inbox, message: Authenticated): Inbox {
  return {
    ...inbox,
    seq: message.seq,
    begun: message.seq,
    syncing: true,
    countSeq: message.seq,
    unreadCount: message.unread_count,
  };
}

/** Puts the newest page in place of what is held; `since` as in `appendPage`. */
export function replaceByPage(
  inbox: Inbox,
  page: NotificationPage,
  since: readonly InboxMessage[],
): Inbox {
  return appendPage({ ...inbox, items: [] }, page, since);
}

/**
 * Adds the next older page.
 *
 * @param since the messages that arrived while the page was fetched.
 */
export function appendPage(
  inbox: Inbox,
  page: NotificationPage,
  since: readonly InboxMessage[],
): Inbox {
  const cursor = page.has_more ? page.next_cursor : null;
  let items = inbox.items;
  for (const notification of page.items) items = withItem(items, toItem(notification));
  const oldest = page.items.at(-1);
  const floor = cursor === null || !oldest ? 0 : toItem(oldest).position;
  let merged: Inbox = {
    ...counted(inbox, page.seq, page.unread_count),
    items,
    cursor,
    floor,
    ...(inbox.seq === undefined && { seq: page.seq, begun: page.seq }),
  };
  for (const message of since) {
    if (message.seq > page.seq) merged = { ...merged, items: applyToItems(merged, message) };
  }
  return merged;
}

/** Where no position is told, an item keeps the `seq` it was first seen with. */
function toItem(notification: Notification): InboxItem {
  return {
    ...notification,
    read_at: notification.read_at ?? null,
    position: notification.position ?? notification.seq,
  };
}

function changed(inbox: Inbox, message: InboxMessage): Inbox {
  return {
    ...counted(inbox, message.seq, message.unread_count),
    items: applyToItems(inbox, message),
    ...reached(inbox, message.seq),
  };
}

/**
 * How far a client has got that was told a part of change `seq`.
 *
 * More of the same change may follow, so a connection lost now asks for all of it again.
 */
function reached(inbox: Inbox, seq: number): Pick<Inbox, "seq" | "begun"> {
  const { seq: held = 0, begun, syncing } = inbox;
  if (syncing) return { seq: Math.max(held, seq - 1), begun: Math.max(begun, seq) };
  // Live, a number left out is a message lost, unless `sync_complete` follows and says otherwise.
  return seq === begun + 1 ? { seq: begun, begun: seq } : { seq: held, begun };
}

/** Nothing more follows of change `seq`. */
function completed(inbox: Inbox, seq: number): Inbox {
  return !inbox.syncing && seq === inbox.begun && seq !== inbox.seq ? { ...inbox, seq } : inbox;
}

function counted(inbox: Inbox, seq: number, unreadCount: number): Inbox {
  return seq < inbox.countSeq ? inbox : { ...inbox, unreadCount, countSeq: seq };
}

function applyToItems(inbox: Inbox, message: InboxMessage): readonly InboxItem[] {
  const { items } = inbox;
  switch (message.type) {
    case "notification": {
      const item = toItem({ ...message.data, seq: message.seq });
      return item.position < inbox.floor ? items : withItem(items, item);
    }
    case "notification_deleted":
      return items.filter(({ id }) => id !== message.notification_id);
    case "read_status_updated":
      return items.map((item) =>
        isCoveredBy(item, message) ? { ...item, read_at: message.read_at, seq: message.seq } : item,
      );
  }
}

function isCoveredBy(
  item: InboxItem,
  message: Extract<InboxMessage, { type: "read_status_updated" }>,
): boolean {
  if (item.seq >= message.seq) return false;
  if (message.notification_id !== null) return item.id === message.notification_id;
  return (
    item.read_at === null &&
    item.position <= (message.up_to ?? message.seq) &&
    (message.notification_type ?? item.type) === item.type
  );
}

/** Puts `item` in its place, or keeps the newer of it and the one already held. */
function withItem(items: readonly InboxItem[], item: InboxItem): readonly InboxItem[] {
  const at = items.findIndex(({ id }) => id === item.id);
  const held = items[at];
  if (held)
    return item.seq <= held.seq ? items : items.with(at, { ...item, position: held.position });
  const after = items.findIndex(({ position }) => position < item.position);
  return items.toSpliced(after === -1 ? items.length : after, 0, item);
}
