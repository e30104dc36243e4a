import { expect, test } from "vitest";
import { bodyOf, keptIn, readPush, targetOf } from "../worker/message.ts";

const SITE = "https://notify.example.com";

const BODY = {
  web_push: 8030,
  mutable: true,
  app_badge: 3,
  notification: {
    title: "Review requested",
    body: "Mira asked you",
    navigate: `${SITE}/?notification=n1`,
    tag: "n1",
    silent: false,
    lang: "en",
    data: {
      id: "n1",
      type: "task",
      priority: "high",
      ack_token: "token",
      actions: [
        { label: "Accept", action: "accept" },
        { label: "View", url: "/tasks/1" },
        { label: "Elsewhere", url: "https://example.org/a" },
      ],
    },
    app_badge: "3",
  },
};

const readText = (text: string, site = SITE, buttons = 2) =>
  readPush(bodyOf({ data: { text: () => text } }), site, buttons);
const read = (body: object, buttons = 2) => readText(JSON.stringify(body), SITE, buttons);
const withFields = (fields: object) => ({
  ...BODY,
  notification: { ...BODY.notification, ...fields },
});

test("a push is shown as it says", () => {
  expect(read(BODY)).toEqual({
    title: "Review requested",
    badge: 3,
    options: {
      icon: "/assets/icon-192.png",
      badge: "/assets/badge-96.png",
      body: "Mira asked you",
      tag: "n1",
      renotify: false,
      lang: "en",
      silent: false,
      actions: [
        { action: "0", title: "Accept" },
        { action: "1", title: "View" },
      ],
      data: {
        id: "n1",
        ackToken: "token",
        navigate: `${SITE}/?notification=n1`,
        buttons: [null, `${SITE}/tasks/1`, "https://example.org/a"],
      },
    },
  });
});

test("a browser that has read the push itself brings no bytes, and the same is shown", () => {
  // As a Notification has them: not its own, but its class's.
  const notification = Object.create(BODY.notification) as object;
  const pushed = bodyOf({ data: null, notification, appBadge: 3 });
  expect(readPush(pushed, SITE, 2)).toEqual(read(BODY));
  expect(
    readPush(bodyOf({ data: null, notification, appBadge: null }), SITE, 2),
  ).not.toHaveProperty("badge");
});

test("a push without anything is shown all the same", () => {
  expect(readPush(bodyOf({ data: null }), SITE, 2).title).toBe("New notification");
});

test.each([null, undefined, "text", {}])(
  "a notification that keeps %j, as the browser's own do, leads to the page",
  (data) => {
    expect(targetOf(keptIn(data), "", SITE)).toBe(`${SITE}/`);
    expect(targetOf(keptIn(data), "0", SITE)).toBe(`${SITE}/`);
  },
);

test("as many buttons as the browser shows", () => {
  expect(read(BODY, 0).options.actions).toEqual([]);
  expect(read(BODY, 3).options.actions).toHaveLength(3);
});

test("silence is kept", () => {
  expect(read(withFields({ silent: true })).options.silent).toBe(true);
});

test.each([
  "",
  "not JSON",
  "null",
  "[]",
  '"text"',
  "{}",
  '{"notification": null}',
  '{"notification": {"title": ""}}',
  '{"notification": {"title": 7, "data": {"ack_token": "token"}}}',
])("%s is shown all the same, since browsers forbid to show nothing", (text) => {
  const { title, options } = readText(text);
  expect([title, options.tag, options.data]).toEqual([
    "New notification",
    undefined,
    { buttons: [] },
  ]);
});

test.each([null, 7, "text", [], [null], [{ label: 7 }], [{ label: "" }]])(
  "actions %j are no buttons",
  (actions) => {
    expect(read(withFields({ data: { id: "n1", actions } }), 9).options.actions).toEqual([]);
  },
);

test.each([-1, 1.5, "3", null])("%j is no badge", (app_badge) => {
  expect(read({ ...BODY, app_badge })).not.toHaveProperty("badge");
});

test.each([
  ["https://example.org/a", "https://example.org/a"],
  [`${SITE}/a?b#c`, `${SITE}/a?b#c`],
  [SITE, `${SITE}/`],
  ["/a", `${SITE}/a`],
  ["http://notify.example.com/a", `${SITE}/?notification=n1`],
  ["javascript:alert(1)", `${SITE}/?notification=n1`],
  ["//evil.example", `${SITE}/?notification=n1`],
  [`${SITE}//evil.example`, `${SITE}/?notification=n1`],
  [`${SITE}@evil.example/`, `${SITE}/?notification=n1`],
  ["https://bank.example@evil.example/", `${SITE}/?notification=n1`],
  [undefined, `${SITE}/?notification=n1`],
])("a click on one that leads to %s goes to %s", (navigate, target) => {
  expect(targetOf(read(withFields({ navigate })).options.data, "", SITE)).toBe(target);
});

test("http leads to this site where this site is http", () => {
  const local = "http://127.0.0.1:8000";
  const text = JSON.stringify(withFields({ navigate: `${local}/docs` }));
  expect(targetOf(readText(text, local).options.data, "", local)).toBe(`${local}/docs`);
});

test.each([
  ["0", `${SITE}/?notification=n1`],
  ["1", `${SITE}/tasks/1`],
  ["2", "https://example.org/a"],
  ["3", `${SITE}/?notification=n1`],
])("button %s leads to %s", (button, target) => {
  expect(targetOf(read(BODY).options.data, button, SITE)).toBe(target);
});

test("a button never leads where a link may not", () => {
  const data = { id: "n1", actions: [{ label: "Bad", url: "javascript:alert(1)" }] };
  expect(targetOf(read(withFields({ data })).options.data, "0", SITE)).toBe(
    `${SITE}/?notification=n1`,
  );
});

test("what cannot be read leads to the page", () => {
  expect(targetOf(readText("").options.data, "", SITE)).toBe(`${SITE}/`);
});
