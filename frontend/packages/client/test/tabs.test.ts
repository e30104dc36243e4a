import { beforeEach, describe, expect, test } from "vitest";
import { createNotifications, type Notifications } from "../src/client.ts";
import { generator, ModelServer } from "./model-server.ts";
import { Service } from "./service.ts";
import { FakeBrowser, FakeWorld, settled, tokenFor } from "./support.ts";

interface Tab {
  world: FakeWorld;
  client: Notifications;
}

let browser: FakeBrowser;
let model: ModelServer;
let service: Service;

beforeEach(() => {
  browser = new FakeBrowser();
  model = new ModelServer(generator(1));
  service = new Service(model);
  for (let count = 0; count < 6; count++) model.create();
});

async function open({ user = "u1", world = new FakeWorld(browser) } = {}): Promise<Tab> {
  service.serve(world);
  const token = async () => tokenFor(user);
  const client = createNotifications({ baseUrl: "https://host", token, environment: world });
  client.start();
  await settled();
  return { world, client };
}

const openMany = async (count: number) => {
  const tabs: Tab[] = [];
  for (let opened = 0; opened < count; opened++) tabs.push(await open());
  return tabs;
};

const sockets = (tabs: readonly Tab[]) => tabs.flatMap(({ world }) => world.open);
const ids = ({ client }: Tab) => client.getState().items.map(({ id }) => id);
const connection = ({ client }: Tab) => client.getState().connection.name;

async function expectAllCurrent(tabs: readonly Tab[]) {
  await settled();
  for (const { client } of tabs) {
    const { items, unreadCount, connection } = client.getState();
    expect(items).toEqual(model.items.slice(0, items.length));
    expect(items.length).toBeGreaterThanOrEqual(Math.min(4, model.items.length));
    expect(unreadCount).toBe(model.unread.length);
    expect(connection.name).toBe("live");
  }
}

test("five tabs share one socket and show the same", async () => {
  const tabs = await openMany(5);
  expect(sockets(tabs)).toHaveLength(1);
  model.create();
  model.setRead("n5", true);
  await expectAllCurrent(tabs);
});

test("who joins gets what the leader holds, without asking the server", async () => {
  const [, second] = await openMany(2);
  expect(second?.world.requests).toEqual([]);
  expect(second && ids(second)).toEqual(["n6", "n5", "n4", "n3"]);
});

test("a change made in a follower goes by its own call and shows everywhere", async () => {
  const tabs = await openMany(3);
  const last = tabs.at(-1);
  await last?.client.markRead("n6");
  expect(last?.world.requests.map(({ method }) => method)).toEqual(["PATCH"]);
  await expectAllCurrent(tabs);
  expect(tabs[0]?.client.getState().items[0]?.read_at).toBe("read");
});

test("arrivals come in order and once, in every tab; in one where that is wanted", async () => {
  const tabs = await openMany(3);
  const arrived: string[][] = tabs.map(() => []);
  const sounded: string[] = [];
  for (const [tab, { client }] of tabs.entries()) {
    client.onArrival(({ id }) => arrived[tab]?.push(id));
    client.onArrival(({ id }) => sounded.push(id), { oncePerBrowser: true });
  }
  for (let count = 0; count < 5; count++) model.create();
  await settled();
  const expected = ["n7", "n8", "n9", "n10", "n11"];
  expect(arrived).toEqual([expected, expected, expected]);
  expect(sounded).toEqual(expected);
});

describe("when the leader goes", () => {
  const ways: [string, (leader: Tab) => void][] = [
    ["is stopped", ({ client }) => client.stop()],
    ["is put away or frozen", ({ world }) => world.isPresent(false)],
    ["crashes", ({ world }) => browser.crash(world)],
  ];

  test.each(ways)("because it %s, the next resumes from what it has", async (_, goes) => {
    const tabs = await openMany(3);
    const [leader, ...others] = tabs;
    const arrived: string[] = [];
    others[0]?.client.onArrival(({ id }) => arrived.push(id));
    model.create();
    await settled();
    if (leader) goes(leader);
    model.create();
    model.remove("n5");
    await expectAllCurrent(others);
    expect(sockets(others)).toHaveLength(1);
    expect(leader?.world.open).toHaveLength(0);
    expect(sockets(others)[0]?.sent[0]).toMatchObject({ type: "authenticate", since: 7 });
    expect(arrived).toEqual(["n7", "n8"]);
  });

  test("and comes back, it follows, catches up and announces what arrived", async () => {
    const tabs = await openMany(2);
    const [leader] = tabs;
    const [arrived, sounded]: string[][] = [[], []];
    leader?.client.onArrival(({ id }) => arrived?.push(id));
    for (const { client } of tabs) {
      client.onArrival(({ id }) => sounded?.push(id), { oncePerBrowser: true });
    }
    model.create();
    await settled();
    leader?.world.isPresent(false);
    await settled();
    for (let count = 0; count < 3; count++) model.create();
    model.setRead("n9", true);
    model.setRead("n5", true);
    model.setRead("n5", false);
    leader?.world.isPresent(true);
    await expectAllCurrent(tabs);
    expect(arrived).toEqual(["n7", "n8", "n10"]);
    expect(sounded).toEqual(["n7", "n8", "n9", "n10"]);
    expect(sockets(tabs)).toHaveLength(1);
    expect(leader?.world.open).toHaveLength(0);
  });

  test("before it has shown anything, the next loads for itself", async () => {
    const answer = service.pause;
    service.pause = () => new Promise(() => undefined);
    const leader = await open();
    service.pause = answer;
    const next = await open();
    browser.crash(leader.world);
    await expectAllCurrent([next]);
  });

  test("without a word, who looks takes over", async () => {
    const tabs = await openMany(2);
    const [leader, follower] = tabs;
    if (!leader || !follower) throw new Error("two tabs were opened");
    leader.world.isHung = true;
    follower.world.wakes();
    await follower.world.passes(4_999);
    expect(follower.world.open).toHaveLength(0);
    await follower.world.passes(1);
    expect(follower.world.open).toHaveLength(1);
    leader.world.isHung = false;
    await settled();
    expect(leader.world.open).toHaveLength(0);
    model.create();
    await expectAllCurrent(tabs);
  });
});

describe("a follower", () => {
  test("takes over from a leader that has fallen silent, though nobody looks", async () => {
    const tabs = await openMany(2);
    const [leader, follower] = tabs;
    if (!leader || !follower) throw new Error("two tabs were opened");
    leader.world.isHung = true;
    await follower.world.passes(79_999);
    expect(follower.world.open).toHaveLength(0);
    await follower.world.passes(1);
    expect(follower.world.open).toHaveLength(1);
  });

  test("leaves a leader alone that speaks at each heartbeat", async () => {
    const [leader, follower] = await openMany(2);
    for (let beat = 0; beat < 10; beat++) {
      await leader?.world.passes(30_000);
      await follower?.world.passes(30_000);
    }
    expect(leader?.world.open).toHaveLength(1);
    expect(follower?.world.open).toHaveLength(0);
    follower?.client.stop();
    expect(follower?.world.timers).toBe(0);
  });

  test("makes a leader that waits try at once when it is looked at", async () => {
    const [leader, follower] = await openMany(2);
    for (const socket of leader?.world.open ?? []) socket.ends(1006);
    await settled();
    expect(follower && connection(follower)).toBe("waiting");
    follower?.world.wakes();
    await settled();
    expect(follower && connection(follower)).toBe("live");
  });

  test("asks again for what it has missed", async () => {
    const tabs = await openMany(2);
    const follower = tabs[1];
    if (!follower) throw new Error("two tabs were opened");
    follower.world.isHung = true;
    model.create();
    await settled();
    follower.world.isHung = false;
    model.create();
    await settled();
    expect(follower.client.getState().seq).toBe(6);
    await follower.world.passes(5_000);
    await expectAllCurrent(tabs);
    expect(follower.client.getState().seq).toBe(8);
  });

  test("keeps the older pages that it has fetched", async () => {
    const tabs = await openMany(2);
    const follower = tabs[1];
    await follower?.client.loadMore();
    model.create();
    follower?.world.wakes();
    await expectAllCurrent(tabs);
    expect(follower && ids(follower)).toHaveLength(7);
  });

  test("loads for itself while the leader cannot", async () => {
    const leader = new FakeWorld(browser);
    service.serve(leader);
    leader.answer = async () => new Response(null, { status: 502 });
    leader.onSocket = () => undefined;
    const token = async () => tokenFor("u1");
    createNotifications({ baseUrl: "https://host", token, environment: leader }).start();
    await settled();
    const follower = await open();
    expect(ids(follower)).toEqual(["n6", "n5", "n4", "n3"]);
  });
});

describe("nothing is shared", () => {
  test("by different users", async () => {
    const tabs = [await open({ user: "u1" }), await open({ user: "u2" })];
    expect(sockets(tabs)).toHaveLength(2);
  });

  test.each(["locks", "createChannel"] as const)("without %s", async (missing) => {
    const without = () => {
      const world = new FakeWorld(browser);
      delete world[missing];
      return world;
    };
    const tabs = [await open({ world: without() }), await open({ world: without() })];
    expect(sockets(tabs)).toHaveLength(2);
    model.create();
    await expectAllCurrent(tabs);
  });

  const refusals: [string, (world: FakeWorld) => void][] = [
    [
      "locks",
      (world) => {
        world.locks = { request: () => Promise.reject(new DOMException("", "SecurityError")) };
      },
    ],
    [
      "channels",
      (world) => {
        world.createChannel = () => {
          throw new DOMException("", "SecurityError");
        };
      },
    ],
  ];

  test.each(refusals)("where the browser refuses %s", async (_, refuse) => {
    const refused = () => {
      const world = new FakeWorld(browser);
      refuse(world);
      return world;
    };
    const tabs = [await open({ world: refused() }), await open({ world: refused() })];
    expect(sockets(tabs)).toHaveLength(2);
    model.create();
    await expectAllCurrent(tabs);
  });

  test("by who cannot say whom the token is for", async () => {
    const worlds = [new FakeWorld(browser), new FakeWorld(browser)];
    for (const world of worlds) {
      service.serve(world);
      const token = async () => "opaque";
      createNotifications({ baseUrl: "https://host", token, environment: world }).start();
    }
    await settled();
    expect(worlds.map(({ open }) => open.length)).toEqual([1, 1]);
  });
});

test("tabs that start while no token can be had share a socket once there is one", async () => {
  let isAway = true;
  const token = async () => {
    if (isAway) throw new TypeError("network");
    return tokenFor("u1");
  };
  const tabs = [1, 2, 3].map((): Tab => {
    const world = new FakeWorld(browser);
    service.serve(world);
    const client = createNotifications({ baseUrl: "https://host", token, environment: world });
    client.start();
    return { world, client };
  });
  await settled();
  expect(tabs.map(connection)).toEqual(["waiting", "waiting", "waiting"]);
  isAway = false;
  for (const { world } of tabs) await world.passes(30_000);
  await expectAllCurrent(tabs);
  expect(sockets(tabs)).toHaveLength(1);
  model.create();
  await expectAllCurrent(tabs);
});

test("who is refused for good makes room for the next, and may join again", async () => {
  const tabs = await openMany(2);
  const [first, second] = tabs;
  for (const socket of first?.world.open ?? []) socket.ends(4429);
  await settled();
  expect(first && connection(first)).toBe("closed");
  expect(second && connection(second)).toBe("live");
  expect(sockets(tabs)).toHaveLength(1);
  first?.client.reconnect();
  model.create();
  await expectAllCurrent(tabs);
  expect(sockets(tabs)).toHaveLength(1);
});
