import { beforeEach, describe, expect, test, vi } from "vitest";
import type { TokenProvider } from "../src/api.ts";
import { Connection, type ConnectionState } from "../src/connection.ts";
import { authenticated, FakeWorld } from "./support.ts";

const HEARTBEAT_MS = 30_000;

let world: FakeWorld;
let states: ConnectionState["name"][];
let since: number | undefined;
let token: ReturnType<typeof vi.fn<TokenProvider>>;
let resumptions: boolean[];
let connection: Connection;

beforeEach(() => {
  world = new FakeWorld();
  states = [];
  since = undefined;
  resumptions = [];
  token = vi.fn<TokenProvider>(async () => "token");
  connection = new Connection({
    url: "ws://host/ws",
    token,
    environment: world,
    since: () => since,
    onState: ({ name }) => states.push(name),
    onAuthenticated: (_, resumed) => resumptions.push(resumed),
    onMessage: () => undefined,
  });
});

async function goLive(fields: Record<string, unknown> = {}) {
  connection.start();
  await world.passes(0);
  await handshake(fields);
}

async function handshake(fields: Record<string, unknown> = {}) {
  world.socket.opens();
  world.socket.says(authenticated(fields));
  world.socket.says({ type: "sync_complete", seq: 0 });
  await world.passes(0);
}

const state = () => states.at(-1);
const pings = () => world.socket.sent.filter(({ type }) => type === "ping").length;

test("goes from idle to live through each stage", async () => {
  await goLive();
  expect(states).toEqual(["connecting", "authenticating", "syncing", "live"]);
});

test("starting twice opens one socket", async () => {
  await goLive();
  connection.start();
  await world.passes(0);
  expect(world.sockets).toHaveLength(1);
});

describe("authentication", () => {
  test("is the first message and leaves out what is not known", async () => {
    await goLive();
    expect(world.socket.sent[0]).toEqual({ type: "authenticate", token: "token" });
    expect(world.socket.url).toBe("ws://host/ws");
  });

  test("asks to resume from the position held when the socket opens", async () => {
    connection.start();
    await world.passes(0);
    since = 7;
    await handshake();
    expect(world.socket.sent[0]).toEqual({ type: "authenticate", token: "token", since: 7 });
  });

  test.each([
    { asked: 7, recovered: true, resumed: true },
    { asked: 7, recovered: false, resumed: false },
    { asked: undefined, recovered: true, resumed: false },
  ])("resumed is $resumed for since $asked, recovered $recovered", async (row) => {
    since = row.asked;
    await goLive({ recovered: row.recovered });
    expect(resumptions).toEqual([row.resumed]);
  });

  test("that takes too long is given up and tried again", async () => {
    connection.start();
    await world.passes(0);
    world.socket.opens();
    await world.passes(15_000);
    expect(world.socket.closed).toBe(true);
    expect(state()).toBe("waiting");
    await world.passes(500);
    expect(world.sockets).toHaveLength(2);
  });

  test("without a session closes and does not come back", async () => {
    token.mockResolvedValue(null);
    connection.start();
    await world.passes(60_000);
    expect(state()).toBe("closed");
    expect(world.sockets).toHaveLength(0);
  });

  test("waits when the token cannot be had now", async () => {
    token.mockRejectedValueOnce(new Error("offline"));
    connection.start();
    await world.passes(0);
    expect(state()).toBe("waiting");
    await world.passes(250);
    await handshake();
    expect(state()).toBe("live");
  });
});

describe("heartbeat", () => {
  test("starts at a random point of the interval, then keeps it", async () => {
    world.chance = 0.25;
    await goLive();
    await world.passes(HEARTBEAT_MS * 0.25 - 1);
    expect(pings()).toBe(0);
    await world.passes(1);
    expect(pings()).toBe(1);
    world.socket.says({ type: "pong", timestamp: "t", seq: 0 });
    await world.passes(HEARTBEAT_MS);
    expect(pings()).toBe(2);
  });

  test("gives up a socket that answers nothing within ten seconds", async () => {
    await goLive();
    await world.passes(HEARTBEAT_MS * 0.5 + 9_999);
    expect(state()).toBe("live");
    await world.passes(1);
    expect(state()).toBe("waiting");
    expect(world.socket.closed).toBe(true);
  });

  test("takes any message for an answer", async () => {
    await goLive();
    await world.passes(HEARTBEAT_MS * 0.5);
    world.socket.says({ type: "unread_count", seq: 1, count: 1, by_type: {} });
    await world.passes(10_000);
    expect(state()).toBe("live");
  });
});

describe("coming back", () => {
  test("waits a random part of half a second after the first loss", async () => {
    await goLive();
    world.chance = 0.8;
    world.socket.ends(1006);
    expect(states.at(-1)).toBe("waiting");
    await world.passes(399);
    expect(world.sockets).toHaveLength(1);
    await world.passes(1);
    expect(world.sockets).toHaveLength(2);
  });

  test("doubles the wait while connections are refused", async () => {
    world.chance = 1;
    const waits = await waitsBetweenLosses(7, () => world.socket.ends(1006));
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 16000, 30000]);
  });

  test("doubles the wait while connections are accepted and dropped", async () => {
    world.chance = 1;
    const waits = await waitsBetweenLosses(4, () => {
      world.socket.opens();
      world.socket.says(authenticated());
      world.socket.says({ type: "sync_complete", seq: 0 });
      world.socket.ends(1006);
    });
    expect(waits).toEqual([500, 1000, 2000, 4000]);
  });

  test("starts over after a connection that lasted", async () => {
    world.chance = 1;
    await waitsBetweenLosses(4, () => world.socket.ends(1006));
    await handshake();
    await world.passes(10_000);
    world.socket.ends(1006);
    await world.passes(500);
    expect(state()).toBe("connecting");
  });

  test.each([1000, 1001, 1006, 1009, 1011, 3001, 3008, 3010, 3012, 3013])(
    "follows close code %i",
    async (code) => {
      await goLive();
      world.socket.ends(code);
      expect(state()).toBe("waiting");
    },
  );

  test.each([
    [4400, "refused"],
    [4403, "origin_refused"],
    [4429, "too_many_connections"],
  ])("does not follow close code %i", async (code, reason) => {
    const closed: ConnectionState[] = [];
    connection = new Connection({
      url: "ws://host/ws",
      token,
      environment: world,
      since: () => undefined,
      onState: (entered) => closed.push(entered),
      onAuthenticated: () => undefined,
      onMessage: () => undefined,
    });
    connection.start();
    await world.passes(0);
    world.socket.ends(code);
    expect(closed.at(-1)).toEqual({ name: "closed", reason });
    await world.passes(120_000);
    world.wakes();
    await world.passes(0);
    expect(world.sockets).toHaveLength(1);
  });

  test("can be started again by hand after it closed", async () => {
    await goLive();
    world.socket.ends(4429);
    connection.start();
    await world.passes(0);
    await handshake();
    expect(state()).toBe("live");
  });

  async function waitsBetweenLosses(losses: number, lose: () => void): Promise<number[]> {
    connection.start();
    await world.passes(0);
    const waits: number[] = [];
    for (let loss = 0; loss < losses; loss++) {
      const sockets = world.sockets.length;
      lose();
      const lostAt = world.time;
      while (world.sockets.length === sockets) await world.passes(100);
      waits.push(world.time - lostAt);
    }
    return waits;
  }
});

describe("waking", () => {
  test("tries at once instead of waiting", async () => {
    world.chance = 1;
    await goLive();
    world.socket.ends(1006);
    world.wakes();
    await world.passes(0);
    expect(world.sockets).toHaveLength(2);
    await handshake();
    await world.passes(500);
    expect(world.sockets).toHaveLength(2);
  });

  test("does not make the next wait shorter", async () => {
    world.chance = 1;
    await goLive();
    world.socket.ends(1006);
    world.wakes();
    await world.passes(0);
    world.socket.ends(1006);
    await world.passes(999);
    expect(world.sockets).toHaveLength(2);
  });

  test("finds out whether a socket survived the sleep", async () => {
    world.chance = 0.99;
    await goLive();
    world.wakes();
    expect(pings()).toBe(1);
    await world.passes(10_000);
    expect(state()).toBe("waiting");
  });
});

describe("a refused token", () => {
  test.each([4401, 3005])("is replaced once after close code %i", async (code) => {
    await goLive();
    world.socket.ends(code);
    await world.passes(500);
    expect(token.mock.calls).toEqual([[{ refresh: false }], [{ refresh: true }]]);
    await handshake();
    expect(state()).toBe("live");
  });

  test("that is refused again ends the connection", async () => {
    await goLive();
    world.socket.ends(4401);
    await world.passes(500);
    world.socket.opens();
    world.socket.ends(4401);
    expect(state()).toBe("closed");
    await world.passes(120_000);
    expect(token).toHaveBeenCalledTimes(2);
  });

  test("may be replaced again once the last one worked", async () => {
    await goLive();
    for (let expiry = 0; expiry < 3; expiry++) {
      await world.passes(10_000);
      world.socket.ends(3005);
      await world.passes(500);
      await handshake();
    }
    expect(state()).toBe("live");
  });
});

describe("renewal", () => {
  const inAnHour = () => new Date(world.time + 3_600_000).toISOString();

  test("sends a fresh token on the same socket before the old one ends", async () => {
    await goLive({ expires_at: inAnHour() });
    token.mockResolvedValue("fresh");
    world.socket.answersPings = true;
    await world.passes(3_600_000 * 0.9);
    expect(world.socket.sent).toContainEqual({ type: "authenticate", token: "fresh" });
    expect(world.sockets).toHaveLength(1);
    world.socket.says(authenticated({ expires_at: inAnHour() }));
    expect(state()).toBe("live");
    expect(resumptions).toHaveLength(1);
  });

  test("is left to the server when little time remains", async () => {
    await goLive({ expires_at: new Date(world.time + 20_000).toISOString() });
    await world.passes(14_000);
    expect(world.socket.sent.map(({ type }) => type)).toEqual(["authenticate"]);
  });
});

describe("stopping", () => {
  test("leaves no socket, timer or listener behind", async () => {
    await goLive({ expires_at: new Date(world.time + 3_600_000).toISOString() });
    connection.stop();
    expect(world.socket.closed).toBe(true);
    expect(world.timers).toBe(0);
    expect(world.listensForWaking).toBe(false);
    expect(state()).toBe("idle");
  });

  test("abandons an attempt that waits for its token", async () => {
    connection.start();
    connection.stop();
    await world.passes(60_000);
    expect(world.sockets).toHaveLength(0);
    expect(state()).toBe("idle");
  });

  test("ignores what an abandoned socket still says", async () => {
    await goLive();
    const [old] = world.sockets;
    connection.resume();
    await world.passes(500);
    old?.ends(4401);
    await handshake();
    expect(state()).toBe("live");
    expect(token).toHaveBeenLastCalledWith({ refresh: false });
  });
});
