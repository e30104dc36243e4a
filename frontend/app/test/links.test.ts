// @vitest-environment happy-dom
import { expect, test } from "vitest";
import { answersOf, linksOf } from "../src/links.ts";
import { safeHref } from "../src/safe-href.ts";

test.each([
  "/tasks/1",
  "?task=1",
  "#task-1",
  "/",
  "https://example.com",
  "HTTPS://example.com:8443/a?b#c",
  "https://[2001:db8::1]/a",
])("%s is followed", (address) => {
  expect(safeHref(address)).toBe(address);
});

test.each([
  "tasks/1",
  "http://example.com/",
  "mailto:a@example.com",
  "//example.com",
  "/\\example.com",
  "/\t/example.com",
  "https://bank.example@evil.example/",
  "https://",
  "https:example.com",
  " /tasks/1",
  "/tasks/1\n",
  "/tasks/\u202e1",
  `/${"a".repeat(2_048)}`,
  "javascript:alert(1)",
  " JaVaScript:alert(1)",
  "java\nscript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  7,
  null,
  undefined,
])("%j is not", (address) => {
  expect(safeHref(address)).toBeUndefined();
});

test("actions that have an address are offered, else the notification's own", () => {
  const actions = [
    { label: "View", url: "/tasks/1", primary: true },
    { label: "Dismiss", action: "dismiss" },
    { label: "Run", url: "javascript:alert(1)" },
    null,
  ];
  expect(linksOf({ data: { action_url: "/a", actions } })).toEqual([
    { label: "View", href: "/tasks/1", index: 0 },
  ]);
  expect(linksOf({ data: { action_url: "/a", actions: [] } })).toEqual([
    { label: "Open", href: "/a" },
  ]);
  expect(linksOf({ data: {} })).toEqual([]);
});

test("links are numbered as the server numbers them, and answers are apart from them", () => {
  const actions = [
    { label: "Accept", action: "accept", primary: true },
    null,
    "text",
    { label: "View", url: "/tasks/1" },
    { label: 7, action: "dismiss" },
    { label: "Dismiss", action: "dismiss" },
  ];
  expect(linksOf({ data: { actions } })).toEqual([{ label: "View", href: "/tasks/1", index: 1 }]);
  expect(answersOf({ data: { actions } })).toEqual([
    { label: "Accept", action: "accept", isPrimary: true },
    { label: "Dismiss", action: "dismiss", isPrimary: false },
  ]);
});
