import { expect, test } from "vitest";
import { formatRelative } from "../src/time.tsx";

const NOW = Date.UTC(2026, 0, 8, 12);

test.each([
  [-5, "now"],
  [59, "now"],
  [60, "1m ago"],
  [3_599, "59m ago"],
  [3_600, "1h ago"],
  [86_399, "23h ago"],
  [86_400, "yesterday"],
  [3 * 86_400, "3d ago"],
  [7 * 86_400, "Jan 1, 2026"],
])("%i seconds ago is %s", (seconds, words) => {
  expect(formatRelative(new Date(NOW - seconds * 1000), NOW)).toBe(words);
});
