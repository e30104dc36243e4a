import { beforeEach, describe, expect, test } from "vitest";
import { createNotifications, type Notifications } from "../src/client.ts";
import { generator, ModelServer } from "./model-server.ts";
import { Service } from "./service.ts";
import { FakeWorld, settled } from "./support.ts";

let world: FakeWorld;
let model: ModelServer;
let service: Service;
let client: Notifications;
/** Requests wait while it is set, until it is called. */
let proceed: (() => void) | undefined;

beforeEach(async () => {
  world = new FakeWorld();
  model = new ModelServer(generator(1));
  service = new Service(model);
  for (let count = 0; count < 6; count++) model.create();
  service.serve(world);
  proceed = undefined;
  client = createNotifications({
    baseUrl: "https://host",
    token: async () => "token",
    environment: world,
  });
  client.start();
  await settled();
});

const state = () => client.getState();
const unread = () => state().items.flatMap(({ id, read_at }) => (read_at === null ? [id] : []));
const failed = () => state().failures.map(({ change }) => "id" in change && change.id);
const ids = () => state().items.map(({ id }) => id);
const changes = () => world.requests.filter(({ method }) => method !== "GET").map(describeRequest);
const describeRequest = ({ method, url }: Request) =>
  `${method} ${new URL(url).pathname.replace("/api/v1/notifications/", "")}`;

/** From now on requests wait at the server's door. */
function hold(): void {
  service.pause = () =>
    new Promise((resolve) => {
      const earlier = proceed;
      proceed = () => {
        earlier?.();
        resolve();
      };
    });
}

async function letGo(): Promise<void> {
  service.pause = async () => undefined;
  proceed?.();
  await settled();
}

describe("a change shows before the server has answered", () => {
  beforeEach(hold);

  test("read, unread and removed, each with its counts", async () => {
    void client.markRead("n6");
    expect([unread(), state().unreadCount]).toEqual([["n5", "n4", "n3"], 5]);
    void client.markUnread("n6");
    expect([unread(), state().unreadCount]).toEqual([["n6", "n5", "n4", "n3"], 6]);
    void client.remove("n6");
    expect([ids(), state().unreadCount]).toEqual([["n5", "n4", "n3"], 5]);
    await settled();
    expect(changes()).toEqual(["PATCH n6/read"]);
    await letGo();
    expect(changes()).toEqual(["PATCH n6/read", "PATCH n6/unread", "DELETE n6"]);
    expect(state()).toMatchObject({ unreadCount: 5, byType: model.byType, failures: [] });
    expect(ids()).toEqual(["n5", "n4", "n3"]);
  });

  test("all read, but for what arrives meanwhile", async () => {
    void client.markAllRead();
    expect([unread(), state().unreadCount]).toEqual([[], 0]);
    model.create();
    await settled();
    expect([unread(), state().unreadCount]).toEqual([["n7"], 1]);
    await letGo();
    expect([unread(), state().unreadCount, model.unread.length]).toEqual([["n7"], 1, 1]);
  });

  test("all of a type read", async () => {
    model.create();
    await settled();
    const tasks = model.byType["task"] ?? 0;
    const all = model.unread.length;
    expect(tasks).toBeGreaterThan(0);
    void client.markAllRead({ type: "task" });
    expect(state().unreadCount).toBe(all - tasks);
    expect(state().byType).toEqual({ user: all - tasks });
    expect(state().items.every((item) => item.type !== "task" || item.read_at)).toBe(true);
    await letGo();
    expect(model.unread.length).toBe(all - tasks);
    expect(state().unreadCount).toBe(all - tasks);
  });

  test("whatever the server tells meanwhile of other things", async () => {
    void client.markRead("n6");
    model.setRead("n4", true);
    model.remove("n3");
    await settled();
    expect([unread(), state().unreadCount]).toEqual([["n5"], 3]);
    await letGo();
    expect([unread(), state().unreadCount]).toEqual([["n5"], 3]);
  });
});

test("a change asked for again is sent once", async () => {
  await Promise.all([client.markRead("n6"), client.markRead("n6"), client.markRead("n6")]);
  expect(changes()).toEqual(["PATCH n6/read"]);
  await client.markRead("n6");
  expect(state().unreadCount).toBe(5);
});

test("changes of different notifications do not wait for each other", () => {
  hold();
  void client.markRead("n6");
  void client.remove("n5");
  return settled().then(() => expect(changes()).toEqual(["PATCH n6/read", "DELETE n5"]));
});

test("requests of changes outlive the page", async () => {
  await client.markRead("n6");
  expect(world.requests.at(-1)?.keepalive).toBe(true);
});

describe("taken back", () => {
  test.each(["refused", "lost"] as const)("when it is %s, and told", async (mishap) => {
    service.mishap = () => mishap;
    await client.remove("n6");
    expect([ids()[0], state().unreadCount]).toEqual(["n6", 6]);
    expect(state().failures).toMatchObject([
      { change: { kind: "remove", id: "n6" }, error: { status: mishap === "lost" ? 0 : 503 } },
    ]);
  });

  test("alone: what was changed before and after stays", async () => {
    hold();
    const mishaps = ["none", "refused", "none"] as const;
    let sent = 0;
    service.mishap = () => mishaps[sent++] ?? "none";
    void client.markRead("n6");
    void client.markRead("n5");
    void client.markRead("n4");
    expect(unread()).toEqual(["n3"]);
    await letGo();
    expect([unread(), state().unreadCount]).toEqual([["n5", "n3"], 4]);
  });

  test("until it is made again or dismissed", async () => {
    service.mishap = () => "refused";
    for (const id of ["n6", "n5", "n4"]) await client.markRead(id);
    expect(failed()).toEqual(["n6", "n5", "n4"]);
    service.mishap = () => "none";
    await client.change({ kind: "read", id: "n5" });
    expect([failed(), unread()]).toEqual([
      ["n6", "n4"],
      ["n6", "n4", "n3"],
    ]);
    await client.remove("n6");
    expect(failed()).toEqual(["n6", "n4"]);
    client.dismissFailures();
    expect(failed()).toEqual([]);
  });

  test("never when the server has made it, though its answer was lost", async () => {
    service.mishap = () => "answer lost";
    await client.markRead("n6");
    expect([state().unreadCount, failed()]).toEqual([5, []]);
  });
});

test("what is not held and cannot be changed is told too, whatever happens meanwhile", async () => {
  hold();
  service.mishap = () => "refused";
  void client.markRead("n1");
  void client.remove("n2");
  await settled();
  model.create();
  await settled();
  expect(state().unreadCount).toBe(7);
  await letGo();
  expect(failed()).toEqual(["n1", "n2"]);
  expect(state().unreadCount).toBe(7);
});

test("what is not held is changed without a trace", async () => {
  await client.markRead("n1");
  await client.loadMore();
  expect([unread(), state().unreadCount]).toEqual([["n6", "n5", "n4", "n3", "n2"], 5]);
  expect(failed()).toEqual([]);
});

test("removing what is gone already is no failure", async () => {
  await client.remove("unknown");
  expect(failed()).toEqual([]);
  expect(changes()).toEqual(["DELETE unknown"]);
});

test("what is confirmed stays while its message is late, however often it is looked at", async () => {
  const pong = { type: "pong", timestamp: "t", seq: model.seq };
  model.onFrame = () => undefined;
  world.socket.onSent = () => world.socket.says(pong);
  await client.markRead("n6");
  await world.passes(20_000);
  for (let look = 0; look < 3; look++) {
    world.socket.says(pong);
    await world.passes(1_000);
    expect([unread(), state().unreadCount]).toEqual([["n5", "n4", "n3"], 5]);
  }
  // The server never tells of it, so what it does tell is believed in the end.
  await world.passes(15_000);
  world.socket.says(pong);
  expect([unread(), state().unreadCount]).toEqual([["n6", "n5", "n4", "n3"], 6]);
});

describe("without a socket", () => {
  test("what the server has confirmed stays until its message comes", async () => {
    world.chance = 1;
    world.socket.ends(1006);
    await client.markRead("n6");
    await client.remove("n5");
    expect([unread(), state().unreadCount]).toEqual([["n4", "n3"], 4]);
    await world.passes(30_000);
    expect(state().connection.name).toBe("live");
    expect([unread(), state().unreadCount]).toEqual([["n4", "n3"], 4]);
  });

  test("what another session has changed back is shown once it is told", async () => {
    world.chance = 1;
    world.socket.ends(1006);
    await client.markRead("n6");
    model.setRead("n6", false);
    expect(unread()).toEqual(["n5", "n4", "n3"]);
    await world.passes(30_000);
    expect([unread(), state().unreadCount]).toEqual([["n6", "n5", "n4", "n3"], 6]);
  });
});

describe("only what is unread", () => {
  test("is fetched by itself and emptied by reading, page by page", async () => {
    model.setRead("n5", true);
    await client.show("unread");
    await settled();
    expect(ids()).toEqual(["n6", "n4", "n3", "n2"]);
    expect(state()).toMatchObject({ view: "unread", hasMore: true, status: "ready" });
    for (const id of ids()) await client.markRead(id);
    await settled();
    expect(ids()).toEqual(["n1"]);
    await client.markRead("n1");
    expect([ids(), state().hasMore]).toEqual([[], false]);
    await client.show("all");
    expect(ids().slice(0, 4)).toEqual(["n6", "n5", "n4", "n3"]);
  });

  test("shows again what is unread again elsewhere, though it was never held", async () => {
    model.setRead("n1", true);
    await client.show("unread");
    await client.loadMore();
    expect(ids()).toEqual(["n6", "n5", "n4", "n3", "n2"]);
    model.setRead("n1", false);
    await settled();
    await client.loadMore();
    expect(ids()).toEqual(["n6", "n5", "n4", "n3", "n2", "n1"]);
  });

  test("says so when it cannot be fetched", async () => {
    const { answer } = world;
    world.answer = async () => new Response(null, { status: 502 });
    await client.show("unread");
    expect(state()).toMatchObject({ status: "error", error: { status: 502 } });
    world.answer = answer;
    await client.refresh();
    expect(state()).toMatchObject({ status: "ready", error: null });
  });
});
