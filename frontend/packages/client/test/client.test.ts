import { beforeEach, describe, expect, test, vi } from "vitest";
import type { NotificationPage, TokenProvider } from "../src/api.ts";
import { createNotifications, type Notifications } from "../src/client.ts";
import { authenticated, FakeWorld, notification } from "./support.ts";

let world: FakeWorld;
let token: ReturnType<typeof vi.fn<TokenProvider>>;
let client: Notifications;
let pages: Record<string, Partial<NotificationPage>>;

beforeEach(() => {
  world = new FakeWorld();
  token = vi.fn<TokenProvider>(async ({ refresh }) => (refresh ? "fresh" : "token"));
  pages = { "": {} };
  world.answer = (request) => {
    const cursor = new URL(request.url).searchParams.get("cursor") ?? "";
    return Response.json({
      items: [],
      unread_count: 0,
      next_cursor: null,
      has_more: false,
      seq: 0,
      ...pages[cursor],
    });
  };
  client = createNotifications({ baseUrl: "https://host", token, environment: world });
});

const state = () => client.getState();
const ids = () => state().items.map(({ id }) => id);
const unauthorized = () =>
  Response.json(
    {
      error: { code: "not_authenticated", message: "Valid credentials are required." },
      correlation_id: "c1",
    },
    { status: 401 },
  );

async function goLive(seq = 0, fields: object = {}) {
  client.start();
  await world.passes(0);
  await handshake(seq, fields);
}

async function handshake(seq: number, fields: object = {}) {
  world.socket.opens();
  world.socket.says(authenticated({ seq, ...fields }));
  world.socket.says({ type: "sync_complete", seq });
  await world.passes(0);
}

const arrives = (seq: number, fields: object = {}) => {
  const data = notification(seq, fields);
  world.socket.says({ type: "notification", seq, unread_count: seq, data });
  world.socket.says({ type: "unread_count", seq, count: seq, by_type: { task: seq } });
};

describe("starting", () => {
  test("shows the newest page, then resumes the socket from it", async () => {
    pages[""] = { items: [notification(4), notification(2)], unread_count: 2, seq: 5 };
    await goLive(5, { unread_count: 2 });
    expect(world.requests[0]?.url).toBe("https://host/api/v1/notifications?limit=20");
    expect(world.requests[0]?.headers.get("Authorization")).toBe("Bearer token");
    expect(world.socket.url).toBe("wss://host/api/v1/notifications/ws");
    expect(world.socket.sent[0]).toEqual({ type: "authenticate", token: "token", since: 5 });
    expect(ids()).toEqual(["n4", "n2"]);
    expect(state()).toMatchObject({
      status: "ready",
      unreadCount: 2,
      hasMore: false,
      connection: { name: "live" },
    });
  });

  test("from an address that ends in a slash, asks at the same places", async () => {
    client = createNotifications({ baseUrl: "https://host/", token, environment: world });
    await goLive();
    expect(world.requests[0]?.url).toBe("https://host/api/v1/notifications?limit=20");
    expect(world.socket.url).toBe("wss://host/api/v1/notifications/ws");
  });

  test("connects even when the page cannot be had, and fetches it then", async () => {
    const answer = world.answer;
    world.answer = () => Promise.reject(new TypeError("network"));
    client.start();
    await world.passes(0);
    expect(state()).toMatchObject({ status: "error", error: { status: 0, code: "network" } });
    world.answer = answer;
    pages[""] = { items: [notification(3)], unread_count: 1, seq: 3 };
    await handshake(3);
    expect(state().status).toBe("ready");
    expect(ids()).toEqual(["n3"]);
  });

  test("again after stopping resumes without fetching", async () => {
    pages[""] = { items: [notification(1)], unread_count: 1, seq: 1 };
    await goLive(1);
    client.stop();
    expect(world.timers).toBe(0);
    client.start();
    await world.passes(0);
    await handshake(1);
    expect(world.requests).toHaveLength(1);
    expect(ids()).toEqual(["n1"]);
  });

  test("twice in a row, as React does in development, leaves one connection", async () => {
    client.start();
    client.stop();
    client.start();
    await world.passes(0);
    expect(world.sockets).toHaveLength(1);
    expect(state().status).toBe("ready");
  });
});

describe("live", () => {
  test("keeps what the list told of the channels, which messages do not", async () => {
    pages[""] = { items: [notification(1)], unread_count: 1, seq: 1 };
    await goLive(1);
    for (const [seq, position] of [
      [2, 2],
      [3, 1],
    ] as const) {
      const { delivery_status: _, ...data } = notification(position);
      world.socket.says({ type: "notification", seq, unread_count: 2, data });
    }
    const statuses = state().items.map(({ id, delivery_status }) => [id, delivery_status]);
    expect(statuses).toEqual([
      ["n2", {}],
      ["n1", { in_app: "sent" }],
    ]);
  });

  test("tells subscribers of each change and nobody who left", async () => {
    await goLive();
    const listener = vi.fn();
    const leave = client.subscribe(listener);
    arrives(1);
    const calls = listener.mock.calls.length;
    expect(calls).toBeGreaterThan(0);
    leave();
    arrives(2);
    expect(listener).toHaveBeenCalledTimes(calls);
    expect(ids()).toEqual(["n2", "n1"]);
  });

  test("announces what arrives unread, once", async () => {
    await goLive();
    const listener = vi.fn();
    client.onArrival(listener);
    arrives(1);
    arrives(1);
    arrives(2, { read_at: "2026-01-08T12:05:00Z" });
    expect(listener.mock.calls.map(([item]) => item.id)).toEqual(["n1"]);
  });

  test("announces what a page brings before its message, once", async () => {
    await goLive();
    const listener = vi.fn();
    client.onArrival(listener);
    const read = notification(3, { read_at: "2026-01-08T12:05:00Z" });
    pages[""] = { items: [read, notification(2), notification(1)], unread_count: 2, seq: 3 };
    await client.refresh();
    expect(listener.mock.calls.map(([item]) => item.id)).toEqual(["n1", "n2"]);
    for (const seq of [1, 2, 3, 4]) arrives(seq);
    expect(listener.mock.calls.map(([item]) => item.id)).toEqual(["n1", "n2", "n4"]);
  });

  test("resumes when a pong is ahead of what arrived and stays so", async () => {
    await goLive();
    arrives(1);
    world.socket.says({ type: "pong", timestamp: "t", seq: 3 });
    await world.passes(5_500);
    expect(world.sockets).toHaveLength(2);
    world.socket.opens();
    expect(world.socket.sent[0]).toMatchObject({ since: 1 });
  });

  test("shows what comes after a lost message, and resumes from before it", async () => {
    await goLive();
    arrives(1);
    arrives(3);
    expect(ids()).toEqual(["n3", "n1"]);
    await world.passes(5_500);
    world.socket.opens();
    expect(world.socket.sent[0]).toMatchObject({ since: 1 });
  });

  test("takes the server's word that numbers left out say nothing", async () => {
    await goLive();
    arrives(1);
    arrives(3);
    world.socket.says({ type: "sync_complete", seq: 4 });
    expect(state().seq).toBe(4);
    await world.passes(6_000);
    expect(world.sockets).toHaveLength(1);
  });

  test("acknowledges how far it has got, at most once a second", async () => {
    await goLive(2);
    await world.passes(1_000);
    arrives(3);
    arrives(4);
    await world.passes(1_000);
    const acks = world.socket.sent.filter(({ type }) => type === "ack");
    expect(acks).toEqual([
      { type: "ack", seq: 2 },
      { type: "ack", seq: 4 },
    ]);
  });

  test("lets frames that are on their way catch up with a pong", async () => {
    await goLive();
    world.socket.says({ type: "pong", timestamp: "t", seq: 1 });
    await world.passes(1_000);
    arrives(1);
    await world.passes(5_000);
    expect(world.sockets).toHaveLength(1);
  });

  test("fetches anew when the server no longer knows the position", async () => {
    pages[""] = { items: [notification(1)], unread_count: 1, seq: 1 };
    await goLive(1);
    world.socket.ends(3010);
    await world.passes(500);
    pages[""] = { items: [notification(9)], unread_count: 4, seq: 9 };
    await handshake(9, { recovered: false, unread_count: 4 });
    expect(ids()).toEqual(["n9"]);
    expect(state()).toMatchObject({ unreadCount: 4, seq: 9, status: "ready" });
  });

  test("keeps the user's changes until it is fetched anew", async () => {
    pages[""] = { items: [notification(1)], unread_count: 1, seq: 1 };
    await goLive(1, { unread_count: 1 });
    world.socket.ends(3010);
    await client.markRead("n1");
    const shown: unknown[] = [];
    client.subscribe(() => shown.push([state().items[0]?.read_at === null, state().unreadCount]));
    await world.passes(500);
    const read = notification(1, { read_at: "2026-01-08T12:05:00Z", seq: 9 });
    pages[""] = { items: [read], unread_count: 0, seq: 9 };
    await handshake(9, { recovered: false, unread_count: 0 });
    expect(state()).toMatchObject({ seq: 9, unreadCount: 0, items: [{ read_at: read.read_at }] });
    expect(new Set(shown.map(String))).toEqual(new Set(["false,0"]));
  });

  test("retries a failed page once it is connected again", async () => {
    pages[""] = { items: [notification(1)], unread_count: 1, seq: 1 };
    await goLive(1);
    const answer = world.answer;
    world.answer = () => new Response("<h1>Bad Gateway</h1>", { status: 502 });
    await client.refresh();
    expect(state().error).toMatchObject({ status: 502, code: "http_error" });
    expect(ids()).toEqual(["n1"]);
    world.answer = answer;
    world.socket.ends(1006);
    await world.passes(500);
    await handshake(1);
    expect(state()).toMatchObject({ status: "ready", error: null });
  });
});

describe("older pages", () => {
  beforeEach(() => {
    pages = {
      "": { items: [notification(3)], next_cursor: "c3", has_more: true, seq: 3, unread_count: 3 },
      c3: { items: [notification(2)], next_cursor: "c2", has_more: true, seq: 3, unread_count: 3 },
      c2: { items: [notification(1)], seq: 3, unread_count: 3 },
    };
  });

  test("follow one another to the end", async () => {
    await goLive(3);
    expect(state().hasMore).toBe(true);
    await client.loadMore();
    await client.loadMore();
    expect(ids()).toEqual(["n3", "n2", "n1"]);
    expect(state().hasMore).toBe(false);
    await client.loadMore();
    expect(world.requests).toHaveLength(3);
  });

  test("are fetched one at a time", async () => {
    await goLive(3);
    await Promise.all([client.loadMore(), client.loadMore()]);
    expect(world.requests).toHaveLength(2);
  });

  test("keep what arrives while they are fetched", async () => {
    await goLive(3);
    const loading = client.loadMore();
    world.socket.says({
      type: "notification_deleted",
      seq: 4,
      unread_count: 2,
      notification_id: "n2",
    });
    arrives(5);
    await loading;
    expect(ids()).toEqual(["n5", "n3"]);
    expect(state().unreadCount).toBe(5);
  });

  test("that fail can be asked for again", async () => {
    await goLive(3);
    const answer = world.answer;
    world.answer = () => Promise.reject(new TypeError("network"));
    await client.loadMore();
    expect(state()).toMatchObject({ more: "error", status: "ready" });
    world.answer = answer;
    await client.loadMore();
    expect(ids()).toEqual(["n3", "n2"]);
  });

  test("are dropped when the newest page was replaced meanwhile", async () => {
    await goLive(3);
    const loading = client.loadMore();
    pages[""] = { items: [notification(9)], seq: 9, unread_count: 1 };
    await client.refresh();
    await loading;
    expect(ids()).toEqual(["n9"]);
  });
});

describe("calls", () => {
  test("ask for a fresh token once when the server refuses one", async () => {
    world.answer = (request) =>
      request.headers.get("Authorization") === "Bearer fresh"
        ? Response.json({ count: 2, by_type: { task: 2 } })
        : unauthorized();
    expect(await client.api.unreadCount()).toEqual({ count: 2, by_type: { task: 2 } });
    expect(token.mock.calls).toEqual([[{ refresh: false }], [{ refresh: true }]]);
  });

  test("end with the server's own words when the fresh one is refused too", async () => {
    world.answer = unauthorized;
    await expect(client.api.get("n1")).rejects.toMatchObject({
      status: 401,
      code: "not_authenticated",
      message: "Valid credentials are required.",
      correlationId: "c1",
    });
    expect(world.requests).toHaveLength(2);
  });

  test("are not made when nobody is signed in", async () => {
    token.mockResolvedValue(null);
    await expect(client.api.unreadCount()).rejects.toMatchObject({ status: 401 });
    expect(world.requests).toHaveLength(0);
  });
});
