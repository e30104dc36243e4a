import { describe, expect, test } from "vitest";
import type { Notification, NotificationPage } from "../src/api.ts";
import {
  appendPage,
  applyMessage,
  EMPTY_INBOX,
  type Inbox,
  replaceByPage,
  restartAt,
  shownIn,
} from "../src/inbox.ts";
import type { Authenticated, InboxMessage, ServerMessage } from "../src/protocol.ts";
import { authenticated, notification } from "./support.ts";

const READ_AT = "2026-01-08T12:05:00Z";

const page = (seqs: number[], fields: Partial<NotificationPage> = {}): NotificationPage => ({
  items: seqs.map((seq) => notification(seq)),
  unread_count: seqs.length,
  next_cursor: null,
  has_more: false,
  seq: Math.max(0, ...seqs),
  ...fields,
});

const received = (seq: number, fields: Partial<Notification> = {}): InboxMessage => ({
  type: "notification",
  seq,
  unread_count: seq,
  data: notification(seq, fields),
});

const read = (seq: number, id: string | null, fields: object = {}): InboxMessage => ({
  type: "read_status_updated",
  seq,
  unread_count: 0,
  notification_id: id,
  read_at: READ_AT,
  ...fields,
});

const deleted = (seq: number, id: string): InboxMessage => ({
  type: "notification_deleted",
  seq,
  unread_count: 0,
  notification_id: id,
});

const holding = (...seqs: number[]) =>
  replaceByPage(EMPTY_INBOX, "all", page(seqs.toReversed()), []);
const ids = (inbox: Inbox) => inbox.items.map(({ id }) => id);
const unread = (inbox: Inbox) =>
  inbox.items.filter((item) => item.read_at === null).map(({ id }) => id);
const applyAll = (inbox: Inbox, ...messages: ServerMessage[]) =>
  messages.reduce(applyMessage, inbox);

describe("messages", () => {
  test("a notification goes to the top with the server's count", () => {
    const inbox = applyMessage(holding(1, 2), received(3));
    expect(ids(inbox)).toEqual(["n3", "n2", "n1"]);
    expect(inbox.unreadCount).toBe(3);
  });

  test("a change is held once nothing more of it follows", () => {
    const begun = applyMessage(holding(1, 2), received(3));
    expect(begun.seq).toBe(2);
    const counts = { type: "unread_count", seq: 3, count: 3, by_type: {} } as const;
    expect(applyMessage(begun, counts).seq).toBe(3);
    expect(applyMessage(begun, received(4)).seq).toBe(3);
    expect(applyMessage(begun, { type: "pong", timestamp: "t", seq: 3 }).seq).toBe(3);
    expect(applyMessage(begun, { type: "sync_complete", seq: 3 }).seq).toBe(3);
  });

  test("the same notification twice is shown once", () => {
    const inbox = applyAll(holding(1), received(2), received(2));
    expect(ids(inbox)).toEqual(["n2", "n1"]);
  });

  test("one that comes late goes to its place, by position and not by arrival", () => {
    const inbox = applyMessage(holding(1, 5), received(7, { id: "late", position: 3 }));
    expect(ids(inbox)).toEqual(["n5", "late", "n1"]);
  });

  test("what is older than what is held changes nothing", () => {
    const inbox = holding(1, 2, 3);
    expect(applyMessage(inbox, deleted(2, "n1"))).toBe(inbox);
    expect(applyMessage(inbox, received(1, { title: "old" }))).toBe(inbox);
  });

  test("a number left out holds the position back until the server fills the hole", () => {
    const behind = applyAll(holding(1), received(3), received(4));
    expect([ids(behind), behind.seq]).toEqual([["n4", "n3", "n1"], 1]);
    const filled = applyAll(behind, received(2), { type: "sync_complete", seq: 4 });
    expect([ids(filled), filled.seq]).toEqual([["n4", "n3", "n2", "n1"], 4]);
  });

  test("reading, unreading and deleting change the one named", () => {
    const readOnce = applyMessage(holding(1, 2), read(3, "n1"));
    expect(unread(readOnce)).toEqual(["n2"]);
    const unreadAgain = applyMessage(readOnce, read(4, "n1", { read_at: null }));
    expect(unread(unreadAgain)).toEqual(["n2", "n1"]);
    expect(ids(applyMessage(unreadAgain, deleted(5, "n2")))).toEqual(["n1"]);
  });

  test("reading all spares what came later, what has another type and what was read", () => {
    const before = applyAll(
      holding(1, 2),
      read(3, "n1", { read_at: "earlier" }),
      received(4, { type: "billing" }),
      received(5),
    );
    const after = applyMessage(before, read(6, null, { up_to: 4, notification_type: "task" }));
    expect(after.items.map(({ id, read_at }) => [id, read_at])).toEqual([
      ["n5", null],
      ["n4", null],
      ["n2", READ_AT],
      ["n1", "earlier"],
    ]);
  });

  test("counts are taken as told, by type too, and never from an older message", () => {
    const told = applyAll(holding(1), received(2), {
      type: "unread_count",
      seq: 2,
      count: 9,
      by_type: { task: 9 },
    });
    expect([told.unreadCount, told.byType]).toEqual([9, { task: 9 }]);
    expect(applyMessage(told, { type: "unread_count", seq: 1, count: 1, by_type: {} })).toBe(told);
  });

  test("one change of several items arrives whole, and is asked for again until it has", () => {
    const start = applyMessage(holding(1, 2), authenticated({ seq: 3 }) as Authenticated);
    const first = applyMessage(start, received(3, { id: "n1", position: 1, read_at: READ_AT }));
    expect(first.seq).toBe(2);
    const second = applyMessage(first, received(3, { id: "n2", position: 2, read_at: READ_AT }));
    expect(unread(second)).toEqual([]);
    expect(applyMessage(second, { type: "sync_complete", seq: 3 }).seq).toBe(3);
  });
});

describe("pages", () => {
  const newest = page([5, 4], { next_cursor: "c", has_more: true, seq: 5 });

  test("are appended without duplicates", () => {
    const inbox = appendPage(
      replaceByPage(EMPTY_INBOX, "all", newest, []),
      "all",
      page([4, 3, 2], { seq: 5 }),
      [],
    );
    expect(ids(inbox)).toEqual(["n5", "n4", "n3", "n2"]);
    expect(inbox.extents.all).toEqual({ cursor: null, floor: 0 });
  });

  test("leave no gap: what is older than the last page waits for its own", () => {
    const inbox = applyMessage(
      replaceByPage(EMPTY_INBOX, "all", newest, []),
      received(6, { id: "n1", position: 1, read_at: READ_AT }),
    );
    expect(ids(inbox)).toEqual(["n5", "n4"]);
    expect(inbox.unreadCount).toBe(6);
  });

  test("do not undo what arrived while they were fetched", () => {
    const meanwhile = [received(6), deleted(7, "n4"), read(8, "n5")];
    const inbox = replaceByPage(applyAll(holding(4, 5), ...meanwhile), "all", newest, meanwhile);
    expect(ids(inbox)).toEqual(["n6", "n5"]);
    expect(unread(inbox)).toEqual(["n6"]);
    expect(inbox.unreadCount).toBe(0);
  });

  test("ahead of the messages leave those to be counted by number", () => {
    const ahead = page([3, 1], { unread_count: 2, seq: 4 });
    const inbox = replaceByPage(holding(1), "all", ahead, []);
    expect(inbox.seq).toBe(1);
    const caughtUp = applyAll(inbox, received(2), received(3), deleted(4, "n2"));
    expect(ids(caughtUp)).toEqual(["n3", "n1"]);
    expect(inbox.unreadCount).toBe(2);
  });

  test("an older server position after a restart replaces everything", () => {
    const restarted = restartAt(holding(8, 9), authenticated({ seq: 2 }) as Authenticated);
    const inbox = replaceByPage(restarted, "all", page([2, 1]), []);
    expect([ids(inbox), inbox.seq, inbox.unreadCount]).toEqual([["n2", "n1"], 2, 2]);
  });
});

describe("what is unread", () => {
  const newest = page([9, 8], { next_cursor: "c", has_more: true, seq: 9 });
  const all = replaceByPage(EMPTY_INBOX, "all", newest, []);
  const deeper = { next_cursor: "d", has_more: true, seq: 9 };
  const shown = (inbox: Inbox) => shownIn("unread", inbox).map(({ id }) => id);

  test("is shown as far down as everything is held, until its own page tells more", () => {
    const first = applyMessage(all, read(10, "n9"));
    expect(shown(first)).toEqual(["n8"]);
    const second = appendPage(first, "unread", page([8, 5], deeper), []);
    expect(shown(second)).toEqual(["n8", "n5"]);
    expect(shownIn("all", second).map(({ id }) => id)).toEqual(["n9", "n8"]);
  });

  test("stays as its page says while everything is fetched further", () => {
    const both = appendPage(all, "unread", page([9, 8, 5], deeper), []);
    const older = page([7, 6], { next_cursor: "e", has_more: true, seq: 9 });
    const further = appendPage(both, "all", older, []);
    expect(shown(further)).toEqual(["n9", "n8", "n7", "n6", "n5"]);
    expect(shown(applyMessage(further, read(10, null, { up_to: 8 })))).toEqual(["n9"]);
  });

  test("is fetched anew when something is unread again that is not held", () => {
    const both = appendPage(all, "unread", page([9, 8, 5], deeper), []);
    const again = applyMessage(both, read(10, "n6", { read_at: null }));
    expect(again.extents).toEqual({ all: both.extents.all });
    expect(shown(again)).toEqual(["n9", "n8"]);
    const replayed = appendPage(again, "unread", page([9, 8, 5], deeper), [
      read(11, "n7", { read_at: null }),
    ]);
    expect(replayed.extents.unread).toBeUndefined();
  });

  test("is no part of everything, once everything is to be fetched anew", () => {
    const unreadOnly = replaceByPage(EMPTY_INBOX, "unread", page([9, 5], deeper), []);
    expect(shownIn("all", unreadOnly)).toEqual([]);
    expect(ids(applyMessage(unreadOnly, received(10)))).toEqual(["n10", "n9", "n5"]);
  });

  test("before any page is held, is what arrives", () => {
    expect(shown(applyMessage(EMPTY_INBOX, received(1)))).toEqual(["n1"]);
  });
});
