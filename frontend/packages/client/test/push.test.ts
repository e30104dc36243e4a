import { beforeEach, describe, expect, test } from "vitest";
import { createNotifications, type Notifications } from "../src/client.ts";
import { createPush, type Push } from "../src/push.ts";
import { deviceName } from "../src/push-environment.ts";
import { generator, ModelServer } from "./model-server.ts";
import { KEYS, PushBrowser, PushServer, type PushTab } from "./push-support.ts";
import { Service } from "./service.ts";
import { FakeBrowser, FakeWorld, settled, tokenFor } from "./support.ts";

interface Tab {
  world: FakeWorld;
  client: Notifications;
  push: Push;
  environment: PushTab;
}

let browser: FakeBrowser;
let pushes: PushBrowser;
let server: PushServer;
let model: ModelServer;
let service: Service;

beforeEach(() => {
  browser = new FakeBrowser();
  pushes = new PushBrowser();
  server = new PushServer();
  model = new ModelServer(generator(1));
  service = new Service(model);
});

/** A tab is opened by `user`; its effects are waited for. */
async function open({ user = "u1" } = {}): Promise<Tab> {
  const tab = begin(user);
  await settled();
  return tab;
}

function begin(user = "u1"): Tab {
  const world = new FakeWorld(browser);
  service.serve(world);
  server.serve(world);
  const token = async () => tokenFor(user);
  const client = createNotifications({ baseUrl: "https://host", token, environment: world });
  const environment = pushes.tab(browser, world);
  const push = createPush({ client, environment });
  client.start();
  push.start();
  return { world, client, push, environment };
}

/** A tab that has turned push on. */
async function openOn(): Promise<Tab> {
  const tab = await open();
  await tab.push.enable();
  return tab;
}

const close = ({ push, client }: Tab) => {
  push.stop();
  client.stop();
};
/** What a tab tells where push is on. */
const on = (deviceId: string) => ({ status: "on", deviceId, wasRevoked: false, error: null });
const status = ({ push }: Tab) => push.getState().status;
const pushRequests = ({ world }: Tab) => world.requests.filter(({ url }) => url.includes("/push/"));

describe("what stands in the browser's way is told, and nothing is asked", () => {
  test.each(["none", "needs-install"] as const)("%s", async (support) => {
    pushes.support = support;
    const tab = await open();
    await tab.push.enable();
    expect(status(tab)).toBe(support === "none" ? "unsupported" : support);
    expect(pushes.asked).toBe(0);
    expect(pushRequests(tab)).toEqual([]);
  });

  test.each([
    ["default", "default"],
    ["denied", "denied"],
    ["granted", "off"],
  ] as const)("permission %s is %s", async (permission, expected) => {
    pushes.permission = permission;
    const tab = await open();
    expect(status(tab)).toBe(expected);
    expect([pushes.asked, pushes.hasWorker, pushRequests(tab)]).toEqual([0, false, []]);
  });
});

describe("turning on", () => {
  test("subscribes with the server's newest key and tells the server", async () => {
    const tab = await openOn();
    expect(pushes.asked).toBe(1);
    expect(server.posted).toEqual([
      {
        subscription: {
          endpoint: "https://push.example/1",
          expirationTime: null,
          keys: { p256dh: "point", auth: "secret" },
        },
        device_info: { platform: "web", device_name: "Chrome on Windows" },
        key_id: "key-1",
      },
    ]);
    expect(tab.push.getState()).toEqual(on("device-1"));
    const key = pushes.subscription?.options.applicationServerKey ?? new ArrayBuffer();
    expect(Buffer.from(key).toString("base64url")).toBe(KEYS[0]?.public_key);
  });

  test("tells its listeners, also in other tabs", async () => {
    const [first, second] = [await open(), await open()];
    const told: string[] = [];
    second.push.subscribe(() => told.push(status(second)));
    await first.push.enable();
    await settled();
    expect(status(second)).toBe("on");
    expect(told.at(-1)).toBe("on");
  });

  test("ends where the user says no", async () => {
    pushes.answer = "denied";
    const tab = await openOn();
    expect(status(tab)).toBe("denied");
    expect(pushRequests(tab)).toEqual([]);
  });

  test("fails where the browser has no push service, and leaves nothing behind", async () => {
    pushes.isPushServiceAway = true;
    const tab = await open();
    await expect(tab.push.enable()).rejects.toMatchObject({ code: "push_service" });
    expect(status(tab)).toBe("off");
    expect(server.posted).toEqual([]);
    pushes.isPushServiceAway = false;
    await tab.push.enable();
    expect(status(tab)).toBe("on");
  });

  test("fails where the server cannot be told, and can be tried again", async () => {
    const tab = await open();
    server.isAway = true;
    await expect(tab.push.enable()).rejects.toMatchObject({ code: "network" });
    expect(status(tab)).toBe("off");
    server.isAway = false;
    await tab.push.enable();
    expect(status(tab)).toBe("on");
  });
});

describe("each visit", () => {
  test("leaves alone what is right", async () => {
    close(await openOn());
    const tab = await open();
    expect(status(tab)).toBe("on");
    expect([server.posted.length, pushes.subscribed]).toEqual([1, 1]);
  });

  test("subscribes anew when the server has a newer key", async () => {
    close(await openOn());
    server.key = KEYS[1];
    const tab = await open();
    expect(pushes.subscribed).toBe(2);
    expect(server.posted[1]).toMatchObject({
      subscription: { endpoint: "https://push.example/2" },
      key_id: "key-2",
      replaces: "device-1",
    });
    expect(server.devices.map(({ id }) => id)).toEqual(["device-2"]);
    expect(tab.push.getState()).toMatchObject({ status: "on", deviceId: "device-2" });
  });

  test.each([KEYS[0], KEYS[1]])(
    "ends it where it was removed elsewhere, by key %j",
    async (key) => {
      close(await openOn());
      server.devices = [];
      server.key = key;
      pushes.shown = new Set(["n1"]);
      const tab = await open();
      expect(tab.push.getState()).toEqual({
        status: "off",
        deviceId: undefined,
        wasRevoked: true,
        error: null,
      });
      expect([pushes.subscription, pushes.note, pushes.shown.size]).toEqual([null, null, 0]);
      expect([server.posted.length, server.deleted]).toEqual([1, []]);
      close(tab);
      const again = await open();
      expect(again.push.getState()).toMatchObject({ status: "off", wasRevoked: false });
      expect(server.posted).toHaveLength(1);
    },
  );

  test("ends it once, though two tabs begin at the same time", async () => {
    close(await openOn());
    server.devices = [];
    const tabs = [begin(), begin()];
    await settled();
    expect(tabs.map(status)).toEqual(["off", "off"]);
    expect([server.posted.length, pushes.subscribed, pushes.subscription]).toEqual([1, 1, null]);
  });

  test("takes back that it was removed elsewhere once it is on again", async () => {
    close(await openOn());
    server.devices = [];
    const tab = await open();
    await tab.push.enable();
    expect(tab.push.getState()).toEqual(on("device-2"));
    expect(server.posted[1]).not.toHaveProperty("replaces");
  });

  test("does not speak of it any more once another tab has turned it on, and off", async () => {
    close(await openOn());
    server.devices = [];
    const [tab, other] = [await open(), await open()];
    await other.push.enable();
    await settled();
    expect(tab.push.getState()).toEqual(on("device-2"));
    await other.push.disable();
    await settled();
    expect(tab.push.getState()).toMatchObject({ status: "off", wasRevoked: false });
  });

  test("cannot know of a removal where the browser's subscription is another", async () => {
    close(await openOn());
    server.devices = [];
    pushes.subscription = null;
    const tab = await open();
    expect(server.posted[1]).toMatchObject({ replaces: "device-1" });
    expect(tab.push.getState()).toEqual(on("device-2"));
  });

  test("is made up for when the list of devices shows that this one is gone", async () => {
    const tab = await openOn();
    server.devices = [];
    await tab.push.devices();
    await settled();
    expect(tab.push.getState()).toMatchObject({ status: "off", wasRevoked: true });
  });

  test("finds push off where the note cannot be read", async () => {
    pushes.permission = "granted";
    pushes.note = "{";
    expect(status(await open())).toBe("off");
  });

  test("tells the server again when it has given the device up", async () => {
    close(await openOn());
    server.devices = server.devices.map((device) => ({ ...device, is_active: false }));
    await open();
    expect(server.devices.map(({ id, is_active }) => [id, is_active])).toEqual([
      ["device-1", true],
    ]);
  });

  test("subscribes anew when the browser has ended the subscription", async () => {
    close(await openOn());
    pushes.subscription = null;
    const tab = await open();
    expect(server.posted[1]).toMatchObject({ replaces: "device-1" });
    expect(status(tab)).toBe("on");
  });

  test("does it once, though two tabs begin at the same time", async () => {
    close(await openOn());
    server.key = KEYS[1];
    const tabs = [begin(), begin(), begin()];
    await settled();
    for (const { push } of tabs) {
      expect(push.getState()).toEqual(on("device-2"));
    }
    expect([server.posted.length, pushes.subscribed]).toEqual([2, 2]);
  });

  test("believes the server, where another tab has subscribed and its note has not come", async () => {
    close(await openOn());
    const { note } = pushes;
    server.key = KEYS[1];
    close(await open());
    pushes.note = note;
    const tab = await open();
    expect([server.posted.length, pushes.subscribed]).toEqual([2, 2]);
    expect(tab.push.getState()).toEqual(on("device-2"));
  });

  test("tells when it could not make sure, and tries again when the page wakes", async () => {
    close(await openOn());
    server.key = KEYS[1];
    server.isAway = true;
    const tab = await open();
    expect(tab.push.getState()).toMatchObject({ status: "on", error: { code: "network" } });
    server.isAway = false;
    tab.world.wakes();
    await settled();
    expect(tab.push.getState()).toMatchObject({ deviceId: "device-2", error: null });
  });

  test("goes on after it was cut off between the old subscription and the new", async () => {
    close(await openOn());
    server.key = KEYS[1];
    pushes.isPushServiceAway = true;
    const tab = await open();
    expect(tab.push.getState()).toMatchObject({ status: "off", error: { code: "push_service" } });
    pushes.isPushServiceAway = false;
    tab.world.wakes();
    await settled();
    expect(server.posted[1]).toMatchObject({ replaces: "device-1", key_id: "key-2" });
    expect(tab.push.getState()).toMatchObject({ status: "on", error: null });
  });

  test("is repeated when the permission comes back", async () => {
    const tab = await openOn();
    pushes.permit("denied");
    await settled();
    expect(status(tab)).toBe("denied");
    pushes.permit("granted");
    await settled();
    expect(status(tab)).toBe("on");
    expect(server.posted[1]).toMatchObject({ replaces: "device-1" });
  });

  test("is repeated when the worker says that the subscription is another", async () => {
    const tab = await openOn();
    pushes.subscribe(Uint8Array.from(Buffer.alloc(65, 1)));
    tab.environment.hears({ type: "notify.changed" });
    await settled();
    expect(server.posted[1]).toMatchObject({
      subscription: { endpoint: "https://push.example/2" },
      replaces: "device-1",
    });
    expect(tab.push.getState().deviceId).toBe("device-2");
  });
});

describe("another user of the same browser", () => {
  test("has it off, and touches nothing", async () => {
    close(await openOn());
    server.key = KEYS[1];
    const tab = await open({ user: "u2" });
    expect(status(tab)).toBe("off");
    await tab.push.disable();
    expect([server.posted.length, server.deleted, pushes.subscription]).toEqual([
      1,
      [],
      expect.anything(),
    ]);
  });

  test("takes the subscription over by turning it on", async () => {
    const first = await openOn();
    const second = await open({ user: "u2" });
    await second.push.enable();
    await settled();
    expect([status(first), status(second)]).toEqual(["off", "on"]);
    expect(server.posted[1]).not.toHaveProperty("replaces");
    expect(pushes.subscribed).toBe(1);
  });
});

describe("turning off", () => {
  test("ends the subscription, in the browser and with the server", async () => {
    const [tab, other] = [await openOn(), await open()];
    await tab.push.disable();
    await settled();
    expect([status(tab), status(other)]).toEqual(["off", "off"]);
    expect([pushes.subscription, server.devices, pushes.note]).toEqual([null, [], null]);
    close(tab);
    const again = await open();
    expect(status(again)).toBe("off");
    expect(server.posted).toHaveLength(1);
  });

  test("counts as done where the server knows nothing of it", async () => {
    const tab = await openOn();
    server.devices = [];
    await tab.push.disable();
    expect(status(tab)).toBe("off");
  });

  test("ends it in the browser, though the server cannot be told", async () => {
    const tab = await openOn();
    server.isAway = true;
    await expect(tab.push.disable()).rejects.toMatchObject({ code: "network" });
    expect([status(tab), pushes.subscription]).toEqual(["off", null]);
  });

  test("tells the server, though the browser cannot end it", async () => {
    const tab = await openOn();
    Object.assign(pushes.subscription ?? {}, {
      unsubscribe: () => Promise.reject(new DOMException("", "AbortError")),
    });
    await expect(tab.push.disable()).rejects.toMatchObject({ code: "push_service" });
    expect([status(tab), server.devices]).toEqual(["off", []]);
  });

  test("leaves nothing to be subscribed anew, though the page is closed meanwhile", async () => {
    const tab = await openOn();
    Object.assign(pushes.subscription ?? {}, {
      unsubscribe() {
        pushes.subscription = null;
        return new Promise<boolean>(() => undefined);
      },
    });
    void tab.push.disable();
    await settled();
    browser.crash(tab.world);
    expect(status(await open())).toBe("off");
    expect(server.posted).toHaveLength(1);
  });

  test("closes what is shown, which the next to look may not see", async () => {
    const tab = await openOn();
    pushes.shown = new Set(["n1", "n2"]);
    pushes.badge = 2;
    await tab.push.disable();
    expect([pushes.shown.size, pushes.badge]).toEqual([0, 0]);
  });

  test("counts, though the browser is still asking whether to turn on", async () => {
    const tab = await open();
    let answer = () => {};
    pushes.thinking = new Promise((resolve) => {
      answer = resolve;
    });
    const enabling = tab.push.enable();
    await tab.push.disable();
    answer();
    await enabling;
    expect([status(tab), server.posted, pushes.subscription]).toEqual(["off", [], null]);
  });

  test("is what revoking this device does; another is told to the server alone", async () => {
    const tab = await openOn();
    const [own] = await tab.push.devices();
    server.devices = own ? [own, { ...own, id: "phone", kind: "fcm", endpoint: null }] : [];
    await tab.push.revoke("phone");
    expect([server.deleted, status(tab)]).toEqual([["phone"], "on"]);
    await tab.push.revoke("device-1");
    expect([server.deleted, status(tab)]).toEqual([["phone", "device-1"], "off"]);
    expect(pushes.subscription).toBeNull();
  });
});

test("a test answers the notification that is sent", async () => {
  const tab = await openOn();
  expect(await tab.push.sendTest("device-1")).toBe("test-of-device-1");
});

describe("what is shown is closed", () => {
  test("when it is read or deleted, wherever", async () => {
    for (let count = 0; count < 3; count++) model.create();
    await openOn();
    pushes.shown = new Set(["n1", "n2", "n3"]);
    model.setRead("n1", true);
    model.remove("n2");
    await settled();
    expect(pushes.shown).toEqual(new Set(["n3"]));
    model.setRead("n1", false);
    await settled();
    expect(pushes.shown).toEqual(new Set(["n3"]));
  });

  test("when all are read, and only those that were", async () => {
    for (let count = 0; count < 3; count++) model.create();
    const tab = await openOn();
    pushes.shown = new Set(["n1", "n2", "n4"]);
    const { seq } = model;
    model.create();
    await tab.client.markAllRead({ upTo: seq });
    await settled();
    expect(pushes.shown).toEqual(new Set(["n4"]));
    expect(pushes.badge).toBe(1);
  });

  test("when it was read while no page was open", async () => {
    for (let count = 0; count < 2; count++) model.create();
    close(await openOn());
    pushes.shown = new Set(["n1", "n2"]);
    model.setRead("n1", true);
    await open();
    expect(pushes.shown).toEqual(new Set(["n2"]));
  });

  test("though this page holds it as unread, having missed what was told", async () => {
    model.create();
    const tab = await openOn();
    pushes.shown = new Set(["n1"]);
    model.onFrame = () => undefined;
    model.setRead("n1", true);
    tab.world.socket.says({ type: "sync_complete", seq: model.seq });
    await settled();
    expect(pushes.shown).toEqual(new Set());
  });

  test("and the badge follows the count, also upwards", async () => {
    model.create();
    await openOn();
    model.setRead("n1", true);
    await settled();
    expect(pushes.badge).toBe(0);
    model.setRead("n1", false);
    await settled();
    expect(pushes.badge).toBe(1);
  });

  test("by one tab alone", async () => {
    for (let count = 0; count < 2; count++) model.create();
    const tabs = [await openOn(), await open()];
    let closings = 0;
    pushes.shown = new Set(["n1"]);
    pushes.shown.delete = () => {
      closings += 1;
      return true;
    };
    model.setRead("n1", true);
    await settled();
    expect(tabs.map(status)).toEqual(["on", "on"]);
    expect(closings).toBe(1);
  });

  test("not where push is on for somebody else", async () => {
    model.create();
    close(await openOn());
    await open({ user: "u2" });
    pushes.shown = new Set(["n1"]);
    model.setRead("n1", true);
    await settled();
    expect(pushes.shown).toEqual(new Set(["n1"]));
  });
});

describe("a click on a push", () => {
  const click = { type: "notify.open", id: "n1", url: "https://host/?notification=n1" };

  test("is taken by who listens, once the worker has chosen this page", async () => {
    const tab = await openOn();
    const opened: unknown[] = [];
    const leave = tab.push.onOpen((push) => opened.push(push));
    const [take] = tab.environment.hears(click);
    expect(opened).toEqual([]);
    take?.();
    expect(opened).toEqual([{ id: "n1", url: click.url }]);
    leave();
    expect(tab.environment.hears(click)).toEqual([]);
  });

  test("is left alone where the push was for somebody else, or is something else", async () => {
    const tab = await openOn();
    tab.push.onOpen(() => undefined);
    const other = await open({ user: "u2" });
    other.push.onOpen(() => undefined);
    expect(other.environment.hears(click)).toEqual([]);
    expect([null, "text", { type: "other" }].flatMap((it) => tab.environment.hears(it))).toEqual(
      [],
    );
  });
});

test.each([
  [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    0,
    "Chrome on Windows",
  ],
  [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
    0,
    "Edge on Windows",
  ],
  ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", 0, "Firefox on Linux"],
  [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
    0,
    "Safari on macOS",
  ],
  [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
    5,
    "Safari on iPad",
  ],
  [
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
    5,
    "Safari on iPhone",
  ],
  [
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    5,
    "Samsung Internet on Android",
  ],
  [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    0,
    "Chrome on macOS",
  ],
  ["something else", 0, "Browser on a device"],
])("%s is called as people call it", (userAgent, touchPoints, name) => {
  expect(deviceName(userAgent, touchPoints)).toBe(name);
});
