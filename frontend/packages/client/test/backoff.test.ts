import { expect, test } from "vitest";
import { backoff } from "../src/backoff.ts";

test("the limit doubles from half a second to thirty seconds", () => {
  const limits = [0, 1, 2, 3, 4, 5, 6, 7, 100].map((failures) => backoff(failures, 1));
  expect(limits).toEqual([500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
});

test("the wait is spread over the whole range up to the limit", () => {
  expect(backoff(3, 0)).toBe(0);
  expect(backoff(3, 0.25)).toBe(1000);
});
