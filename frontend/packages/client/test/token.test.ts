import { expect, test, vi } from "vitest";
import type { TokenProvider } from "../src/api.ts";
import { createNotifications } from "../src/client.ts";
import { inTime, ofOneUser, subjectOf, unexpired } from "../src/token.ts";
import { authenticated, FakeWorld, tokenFor } from "./support.ts";

const NOW = 1_750_000_000_000;
const endsIn = (seconds: number) => tokenFor("u1", { exp: NOW / 1000 + seconds });

test.each([
  ["has expired", endsIn(-1), true],
  ["is about to", endsIn(4), true],
  ["lasts", endsIn(60), false],
  ["says nothing of it", tokenFor("u1"), false],
  ["cannot be read", "opaque", false],
  ["cannot be read either", "a.bnVsbA.c", false],
])("a token that %s is replaced: %s %s", async (_, token, isReplaced) => {
  const provider = vi.fn<TokenProvider>(async ({ refresh }) => (refresh ? "fresh" : token));
  expect(await unexpired(provider, () => NOW)({ refresh: false })).toBe(
    isReplaced ? "fresh" : token,
  );
});

test("a token that was asked for anew is taken as it is", async () => {
  const provider = vi.fn<TokenProvider>(async () => endsIn(-1));
  await unexpired(provider, () => NOW)({ refresh: true });
  expect(provider).toHaveBeenCalledTimes(1);
});

test("nobody signed in stays nobody", async () => {
  expect(
    await unexpired(
      async () => null,
      () => NOW,
    )({ refresh: false }),
  ).toBeNull();
});

test("whom a token is for can be read where it says so", () => {
  expect(subjectOf(tokenFor("0197a000-0000-7000-8000-000000000001"))).toMatch(/^0197a/);
  expect([subjectOf("opaque"), subjectOf(null), subjectOf("e30.e30.")]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
});

test("another user's token is as good as none", async () => {
  let user = "u1";
  const provider = ofOneUser(async () => tokenFor(user));
  expect(await provider({ refresh: false })).toBe(tokenFor("u1"));
  user = "u2";
  expect(await provider({ refresh: true })).toBeNull();
  user = "u1";
  expect(await provider({ refresh: false })).toBe(tokenFor("u1"));
});

test("tokens that cannot be read are taken as they are", async () => {
  const tokens = ["opaque", "other", null];
  const provider = ofOneUser(async () => tokens.shift() ?? null);
  const taken = [1, 2, 3].map(() => provider({ refresh: false }));
  expect(await Promise.all(taken)).toEqual(["opaque", "other", null]);
});

test("a token that does not come is not waited for for ever", async () => {
  const world = new FakeWorld();
  const asked = inTime(() => new Promise(() => undefined), world);
  const outcome = asked({ refresh: false }).catch((error: Error) => error.message);
  await world.passes(15_000);
  expect(await outcome).toBe("No token came in time.");
  expect(await inTime(async () => "token", world)({ refresh: false })).toBe("token");
  expect(world.timers).toBe(0);
});

test("what another user signs in to is neither asked for nor shown", async () => {
  const world = new FakeWorld();
  world.answer = () =>
    Response.json({ items: [], unread_count: 0, next_cursor: null, has_more: false, seq: 0 });
  let user = "u1";
  const token = async () => tokenFor(user);
  const client = createNotifications({ baseUrl: "https://host", token, environment: world });
  client.start();
  await world.passes(0);
  world.socket.opens();
  world.socket.says(authenticated());
  world.socket.says({ type: "sync_complete", seq: 0 });
  user = "u2";
  world.socket.ends(1006);
  await world.passes(500);
  await client.refresh();
  expect(client.getState()).toMatchObject({
    connection: { name: "closed", reason: "unauthorized" },
    error: { status: 401 },
  });
  expect([world.sockets.length, world.requests.length]).toEqual([1, 1]);
  client.stop();
});

test("the token is fresh before the socket comes back, not after a refusal", async () => {
  const world = new FakeWorld();
  world.answer = () =>
    Response.json({ items: [], unread_count: 0, next_cursor: null, has_more: false, seq: 0 });
  let current = tokenFor("u1", { exp: world.time / 1000 + 60 });
  const token = vi.fn<TokenProvider>(async ({ refresh }) => {
    if (refresh) current = tokenFor("u1", { exp: world.time / 1000 + 600 });
    return current;
  });
  const client = createNotifications({ baseUrl: "https://host", token, environment: world });
  client.start();
  await world.passes(0);
  world.socket.opens();
  world.socket.says(authenticated());
  world.socket.says({ type: "sync_complete", seq: 0 });
  world.time += 3_600_000;
  world.socket.ends(1006);
  await world.passes(500);
  world.socket.opens();
  expect(token).toHaveBeenLastCalledWith({ refresh: true });
  expect(world.socket.sent).toEqual([{ type: "authenticate", token: current, since: 0 }]);
  client.stop();
});
