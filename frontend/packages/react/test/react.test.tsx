// @vitest-environment happy-dom
import { createNotifications, type Notifications } from "@notify/client";
import { act, StrictMode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, test } from "vitest";
import { authenticated, FakeWorld, notification, settled } from "../../client/test/support.ts";
import { Bell, NotificationList, NotificationsProvider, useNotifications } from "../src/index.ts";

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

let world: FakeWorld;
let client: Notifications;
let root: Root;
let host: HTMLElement;

beforeEach(() => {
  world = new FakeWorld();
  world.answer = () =>
    Response.json({
      items: [notification(2), notification(1, { read_at: "2026-01-08T12:05:00Z" })],
      unread_count: 1,
      next_cursor: null,
      has_more: false,
      seq: 2,
    });
  client = createNotifications({
    baseUrl: "https://host",
    token: async () => "token",
    environment: world,
  });
  host = document.createElement("div");
  root = createRoot(host);
});

afterEach(() => act(() => root.unmount()));

async function show(content: React.ReactNode) {
  await act(async () => {
    root.render(
      <StrictMode>
        <NotificationsProvider client={client}>{content}</NotificationsProvider>
      </StrictMode>,
    );
    await settled();
  });
}

async function goLive() {
  await act(async () => {
    world.socket.opens();
    world.socket.says(authenticated({ seq: 2, unread_count: 1 }));
    world.socket.says({ type: "sync_complete", seq: 2 });
    await settled();
  });
}

const arrives = (seq: number, unread_count: number) =>
  act(() =>
    world.socket.says({ type: "notification", seq, unread_count, data: notification(seq) }),
  );

test("the bell shows the live count and says it in full", async () => {
  await show(<Bell icon="🔔" />);
  await goLive();
  const bell = host.querySelector("button");
  expect(bell?.textContent).toBe("🔔1");
  await arrives(3, 120);
  expect(bell?.textContent).toBe("🔔99+");
  expect(bell?.getAttribute("aria-label")).toBe("Notifications, 120 unread");
});

test("the list shows what is held and marks what is unread", async () => {
  await show(<NotificationList>{(item) => item.title}</NotificationList>);
  await goLive();
  await arrives(3, 2);
  const shown = [...host.querySelectorAll("li")].map((li) => [
    li.textContent,
    li.hasAttribute("data-unread"),
  ]);
  expect(shown).toEqual([
    ["Title 3", true],
    ["Title 2", true],
    ["Title 1", false],
  ]);
});

test("a change shows at once, and is taken back when it fails", async () => {
  await show(
    <>
      <Bell icon="🔔" />
      <NotificationList>{(item) => item.title}</NotificationList>
    </>,
  );
  await goLive();
  let refuse: () => void = () => undefined;
  world.answer = () =>
    new Promise((resolve) => {
      refuse = () => resolve(new Response(null, { status: 503 }));
    });
  await act(() => void client.remove("n2"));
  expect(host.textContent).toBe("🔔Title 1");
  await act(async () => {
    refuse();
    await settled();
  });
  expect(host.textContent).toBe("🔔1Title 2Title 1");
});

test("a part renders again only when what it selects changes", async () => {
  let renders = 0;
  function Count() {
    renders += 1;
    return useNotifications((state) => state.unreadCount);
  }
  await show(<Count />);
  await goLive();
  const before = renders;
  await arrives(3, 1);
  expect(renders).toBe(before);
  await arrives(4, 2);
  expect(host.textContent).toBe("2");
});

test("leaving the page stops the client", async () => {
  await show(<Bell icon="🔔" />);
  await goLive();
  await act(() => root.render(null));
  expect(world.socket.closed).toBe(true);
  expect(client.getState().connection).toEqual({ name: "idle" });
});

test("a part outside a provider says what it needs", () => {
  expect(() => act(() => createRoot(host).render(<Bell icon="🔔" />))).toThrow(
    "<NotificationsProvider>",
  );
});
