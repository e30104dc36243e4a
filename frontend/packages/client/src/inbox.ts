/**
 * What a client holds of an inbox, and how pages and messages change it.
 *
 * The rule everything here keeps: a page fetched earlier plus the messages since equals a page
 * fetched now. Counts are absolute and always the server's. `seq` numbers every change, so what
 * arrives twice or late is recognised by its number.
 */

import type { Notification, NotificationPage } from "./api.ts";
import type { Authenticated, InboxMessage, ServerMessage } from "./protocol.ts";

/** Everything, or what is unread; both newest first. */
export type View = "all" | "unread";

/** How far down a view has been fetched. */
export interface Extent {
  /** Where the next older page starts; `null` when everything is held. */
  readonly cursor: string | null;
  /** Place of the oldest item of the pages held; older ones come with their page. */
  readonly floor: number;
}

export interface Inbox {
  /** Newest first; every view shows its part of them. */
  readonly items: readonly Notification[];
  readonly unreadCount: number;
  /** Unread by type, zeros left out; `null` while the server has not told. */
  readonly byType: Readonly<Record<string, number>> | null;
  /** Every change up to this one is reflected in `items`; `undefined` before the first page. */
  readonly seq: number | undefined;
  /** The change told last without leaving one out: `seq`, or the next, of which more may follow. */
  readonly begun: number;
  /** Between `authenticated` and `sync_complete`, when numbers may be left out. */
  readonly syncing: boolean;
  /** The change the counts were taken at. */
  readonly countSeq: number;
  /** The pages held, none at first; a view without an extent is yet to be fetched. */
  readonly extents: { readonly [Name in View]?: Extent | undefined };
}

export const EMPTY_INBOX: Inbox = {
  items: [],
  unreadCount: 0,
  byType: null,
  seq: undefined,
  begun: 0,
  syncing: false,
  countSeq: -1,
  extents: {},
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
    byType: null,
  };
}

/** Puts the newest page of `view` in place of all that is held; `since` as in `appendPage`. */
export function replaceByPage(
  inbox: Inbox,
  view: View,
  page: NotificationPage,
  since: readonly InboxMessage[],
): Inbox {
  return appendPage({ ...inbox, items: [], extents: {} }, view, page, since);
}

/**
 * Adds the first or the next older page of `view`.
 *
 * @param since the messages that arrived while the page was fetched.
 */
export function appendPage(
  inbox: Inbox,
  view: View,
  page: NotificationPage,
  since: readonly InboxMessage[],
): Inbox {
  const cursor = page.has_more ? page.next_cursor : null;
  const oldest = page.items.at(-1);
  const floor = cursor === null || !oldest ? 0 : oldest.position;
  let merged: Inbox = {
    ...counted(inbox, page.seq, page.unread_count),
    items: page.items.reduce(withItem, inbox.items),
    extents: { ...inbox.extents, [view]: { cursor, floor } },
    ...(inbox.seq === undefined && { seq: page.seq, begun: page.seq }),
  };
  for (const message of since) {
    if (message.seq > page.seq) merged = { ...merged, ...applyToItems(merged, message) };
  }
  return merged;
}

/** The part of `items` that `view` shows, without holes: what lies deeper comes with its page. */
export function shownIn(view: View, { items, extents }: Inbox): readonly Notification[] {
  const floor = view === "all" ? floorOf(extents, "all") : floorOf(extents, "all", "unread");
  const isShown = (item: Notification) =>
    item.position >= floor && (view === "all" || item.read_at === null);
  return items.every(isShown) ? items : items.filter(isShown);
}

/** The place down to which one of `views` is held; before the first page, whatever arrives is. */
function floorOf(extents: Inbox["extents"], ...views: View[]): number {
  if (Object.keys(extents).length === 0) return 0;
  return Math.min(...views.map((view) => extents[view]?.floor ?? Number.POSITIVE_INFINITY));
}

function changed(inbox: Inbox, message: InboxMessage): Inbox {
  return {
    ...counted(inbox, message.seq, message.unread_count),
    ...applyToItems(inbox, message),
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

/** A newer count says nothing of the types: `unread_count` follows where they are told. */
function counted(inbox: Inbox, seq: number, unreadCount: number): Inbox {
  if (seq < inbox.countSeq) return inbox;
  const byType = seq === inbox.countSeq ? inbox.byType : null;
  return { ...inbox, unreadCount, byType, countSeq: seq };
}

function applyToItems(inbox: Inbox, message: InboxMessage): Pick<Inbox, "items" | "extents"> {
  const { items, extents } = inbox;
  switch (message.type) {
    case "notification": {
      const held = items.find(({ id }) => id === message.data.id);
      const { delivery_status = {} } = held ?? {};
      const item = { delivery_status, ...message.data, seq: message.seq };
      const isDeeper = !held && item.position < floorOf(extents, "all", "unread");
      return { items: isDeeper ? items : withItem(items, item), extents };
    }
    case "notification_deleted":
      return { items: items.filter(({ id }) => id !== message.notification_id), extents };
    case "read_status_updated": {
      const { notification_id: id, read_at, seq } = message;
      // Unread again, but its content is not held: only its page can tell where it stands.
      if (id !== null && read_at === null && !holds(items, id)) {
        return { items, extents: { ...extents, unread: undefined } };
      }
      return {
        items: items.map((item) => (isCoveredBy(item, message) ? { ...item, read_at, seq } : item)),
        extents,
      };
    }
  }
}

function isCoveredBy(
  item: Notification,
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

const holds = (items: readonly Notification[], wanted: string) =>
  items.some(({ id }) => id === wanted);

/** Puts `item` in its place, or keeps the newer of it and the one already held. */
function withItem(items: readonly Notification[], item: Notification): readonly Notification[] {
  const at = items.findIndex(({ id }) => id === item.id);
  const held = items[at];
  if (held) return item.seq <= held.seq ? items : items.with(at, item);
  const after = items.findIndex(({ position }) => position < item.position);
  return items.toSpliced(after === -1 ? items.length : after, 0, item);
}
