// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { keysAreOn, turnKeys } from "../src/card-keys.ts";
import { signIn, signOut, storedSession } from "../src/session.ts";

const user = {
  id: "u1",
  full_name: "Ada Lovelace",
  email: "ada@example.com",
  timezone: "Europe/London",
  locale: "en",
};

beforeEach(() => {
  const answer = async () => Response.json({ token: "fresh", expires_at: "2026-01-08T12:00:00Z" });
  vi.stubGlobal("fetch", answer);
});
afterEach(() => vi.unstubAllGlobals());

const works = async () => {
  expect(keysAreOn()).toBe(true);
  turnKeys(false);
  expect(keysAreOn()).toBe(false);
  turnKeys(true);
  expect(keysAreOn()).toBe(true);
  const session = await signIn(user);
  expect(storedSession()).toEqual(session);
  signOut();
  expect(storedSession()).toBeNull();
};

test("sessions and keys are kept where the browser stores", works);

describe("where the browser refuses to store anything", () => {
  beforeEach(() => {
    for (const area of ["localStorage", "sessionStorage"] as const) {
      vi.spyOn(window, area, "get").mockImplementation(() => {
        throw new DOMException("", "SecurityError");
      });
    }
  });

  test("they last as long as the page", works);
});
