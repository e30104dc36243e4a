// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Session, sessionTokens, signIn, signOut, storedSession } from "../src/session.ts";

const user = {
  id: "u1",
  full_name: "Ada Lovelace",
  email: "ada@example.com",
  timezone: "Europe/London",
  locale: "en",
};
const inAnHour = new Date(Date.now() + 3_600_000).toISOString();
const held: Session = { user, token: "held", expires_at: inAnHour };

let answer: () => Response;
const fetch = vi.fn(async () => answer());

beforeEach(() => {
  answer = () => Response.json({ token: "fresh", expires_at: inAnHour });
  fetch.mockClear();
  vi.stubGlobal("fetch", fetch);
});
afterEach(() => {
  sessionStorage.clear();
  vi.unstubAllGlobals();
});

test("a session is kept until it is given up", async () => {
  await signIn(user);
  expect(storedSession()).toEqual({ user, token: "fresh", expires_at: inAnHour });
  signOut();
  expect(storedSession()).toBeNull();
});

test("a damaged session counts as none", () => {
  sessionStorage.setItem("notify.session", "{");
  expect(storedSession()).toBeNull();
});

test("its token is used while it lasts", async () => {
  expect(await sessionTokens(held)({ refresh: false })).toBe("held");
  expect(fetch).not.toHaveBeenCalled();
});

test("an ended token, or a refused one, is renewed once for all who ask", async () => {
  const ended = { ...held, expires_at: new Date().toISOString() };
  expect(await sessionTokens(ended)({ refresh: false })).toBe("fresh");
  fetch.mockClear();
  const tokens = sessionTokens(held);
  const asked = [tokens({ refresh: true }), tokens({ refresh: true })];
  expect(await Promise.all(asked)).toEqual(["fresh", "fresh"]);
  expect(fetch).toHaveBeenCalledTimes(1);
  expect(await tokens({ refresh: false })).toBe("fresh");
});

test("a renewal that ends after signing out signs nobody in", async () => {
  await signIn(user);
  const renewed = sessionTokens(held)({ refresh: true });
  signOut();
  await renewed;
  expect(storedSession()).toBeNull();
});

test("a user who is gone is signed out; a server that is away is not the end", async () => {
  const tokens = sessionTokens(held);
  answer = () => Response.json({}, { status: 404 });
  expect(await tokens({ refresh: true })).toBeNull();
  answer = () => Response.json({}, { status: 503 });
  await expect(tokens({ refresh: true })).rejects.toMatchObject({ status: 503 });
});
