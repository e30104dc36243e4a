import type { PushDevice } from "../src/api.ts";
import type { Locks } from "../src/environment.ts";
import type {
  PushEnvironment,
  Registration,
  Subscription,
  WorkerListener,
} from "../src/push-environment.ts";
import type { FakeBrowser, FakeWorld } from "./support.ts";

/** Two keys of a server, as long as they have to be. */
export const KEYS = [1, 2].map((byte) => ({
  public_key: Buffer.alloc(65, byte).toString("base64url"),
  key_id: `key-${byte}`,
}));

interface Subscribing {
  subscription: { endpoint: string; keys: { p256dh: string; auth: string } };
  device_info: Record<string, unknown>;
  key_id: string;
  replaces?: string;
}

/** The push routes of a server, with what they were asked. */
export class PushServer {
  key = KEYS[0];
  readonly posted: Subscribing[] = [];
  readonly deleted: string[] = [];
  devices: PushDevice[] = [];
  isAway = false;

  /** Gives `world` a network that leads here, and for all else where it led before. */
  serve(world: FakeWorld): void {
    const others = world.answer;
    world.answer = (request) =>
      request.url.includes("/push/") ? this.#answer(request) : others(request);
  }

  async #answer(request: Request): Promise<Response> {
    if (this.isAway) throw new TypeError("network");
    const [, route = "", id = "", action] =
      /\/push\/([^/]+)\/?([^/]*)\/?(.*)/.exec(request.url) ?? [];
    if (route === "vapid-public-key") return Response.json(this.key);
    if (route === "subscribe") return this.#subscribe(await request.json());
    if (action === "test") return Response.json({ id: `test-of-${id}` }, { status: 202 });
    if (request.method === "GET") return Response.json({ items: this.devices });
    this.deleted.push(id);
    const isThere = this.devices.some((device) => device.id === id);
    this.devices = this.devices.filter((device) => device.id !== id);
    return isThere ? new Response(null, { status: 204 }) : Response.json({}, { status: 404 });
  }

  #subscribe(body: Subscribing): Response {
    this.posted.push(body);
    const { endpoint } = body.subscription;
    const same = this.devices.find((device) => device.endpoint === endpoint);
    const id = same?.id ?? `device-${this.posted.length}`;
    this.devices = this.devices.filter((device) => ![id, body.replaces].includes(device.id));
    this.devices.push({
      id,
      kind: "web",
      endpoint,
      device_info: body.device_info,
      is_active: true,
      key_id: body.key_id,
      last_used_at: null,
      created_at: "2026-01-08T12:00:00Z",
    });
    return Response.json({ id, user_id: "u1", is_active: true, created_at: "" }, { status: 201 });
  }
}

/** What the tabs of a browser have in common: permission, worker, subscription, note. */
export class PushBrowser {
  support: "full" | "needs-install" | "none" = "full";
  permission: NotificationPermission = "default";
  /** What the user says when asked. */
  answer: NotificationPermission = "granted";
  asked = 0;
  hasWorker = false;
  subscription: Subscription | null = null;
  subscribed = 0;
  isPushServiceAway = false;
  /** What is waited for before the user answers. */
  thinking: Promise<void> | undefined;
  note: string | null = null;
  badge: number | undefined;
  /** Ids of the notifications that are shown. */
  shown = new Set<string>();
  readonly #tabs: PushTab[] = [];

  tab(browser: FakeBrowser, world: FakeWorld): PushTab {
    const tab = new PushTab(this, browser.locksOf(world), world);
    this.#tabs.push(tab);
    return tab;
  }

  /** The user changes the permission in the browser's settings. */
  permit(permission: NotificationPermission): void {
    this.permission = permission;
    if (permission !== "granted") this.subscription = null;
    for (const { permissionListeners } of this.#tabs)
      for (const tell of permissionListeners) tell();
  }

  setNote(note: string | null, from: PushTab): void {
    this.note = note;
    const others = this.#tabs.filter((tab) => tab !== from);
    for (const { noteListeners } of others) for (const tell of noteListeners) tell();
  }

  subscribe(applicationServerKey: Uint8Array<ArrayBuffer>): Subscription {
    this.subscribed += 1;
    const endpoint = `https://push.example/${this.subscribed}`;
    this.subscription = {
      endpoint,
      options: { applicationServerKey: applicationServerKey.slice().buffer },
      toJSON: () => ({ endpoint, expirationTime: null, keys: { p256dh: "point", auth: "secret" } }),
      unsubscribe: async () => {
        this.subscription = null;
        return true;
      },
    };
    return this.subscription;
  }
}

/** One tab's view of a browser. */
export class PushTab implements PushEnvironment {
  readonly locks: Locks;
  readonly permissionListeners = new Set<() => void>();
  readonly noteListeners = new Set<() => void>();
  readonly workerListeners = new Set<WorkerListener>();
  readonly #browser: PushBrowser;
  readonly #world: FakeWorld;

  constructor(browser: PushBrowser, locks: Locks, world: FakeWorld) {
    this.#browser = browser;
    this.#world = world;
    this.locks = locks;
  }

  support = () => this.#browser.support;
  permission = () => this.#browser.permission;

  async askPermission(): Promise<NotificationPermission> {
    this.#browser.asked += 1;
    await this.#browser.thinking;
    this.#browser.permission = this.#browser.answer;
    return this.#browser.permission;
  }

  async register(): Promise<Registration> {
    this.#browser.hasWorker = true;
    return this.#registration;
  }

  registration = async () => (this.#browser.hasWorker ? this.#registration : undefined);
  device = () => ({ platform: "web", device_name: "Chrome on Windows" });
  note = () => this.#browser.note;
  setNote = (note: string | null) => this.#browser.setNote(note, this);
  onWake = (listener: () => void) => this.#world.onWake(listener);

  setBadge(count: number): void {
    this.#browser.badge = count;
  }

  onPermission = (listener: () => void) => added(this.permissionListeners, listener);
  onNote = (listener: () => void) => added(this.noteListeners, listener);
  onWorkerMessage = (listener: WorkerListener) => added(this.workerListeners, listener);

  /** What this tab would do at a message of the worker, if that lets it. */
  hears(message: unknown): (() => void)[] {
    const offers: (() => void)[] = [];
    for (const listener of this.workerListeners) listener(message, (take) => offers.push(take));
    return offers;
  }

  get #registration(): Registration {
    const browser = this.#browser;
    return {
      pushManager: {
        getSubscription: async () => browser.subscription,
        subscribe: async ({ applicationServerKey, userVisibleOnly }) => {
          if (!userVisibleOnly) throw new DOMException("", "NotAllowedError");
          const held = browser.subscription;
          if (held && isSame(held.options.applicationServerKey, applicationServerKey)) return held;
          if (held) throw new DOMException("", "InvalidStateError");
          if (browser.isPushServiceAway) throw new DOMException("", "AbortError");
          return browser.subscribe(applicationServerKey);
        },
      },
      getNotifications: async (filter) =>
        [...browser.shown]
          .filter((id) => !filter || filter.tag === id)
          .map((id) => ({ data: { id }, close: () => browser.shown.delete(id) })),
    };
  }
}

const isSame = (held: ArrayBuffer | null, wanted: Uint8Array<ArrayBuffer>) =>
  held !== null && Buffer.from(held).equals(wanted);

function added<Listener>(listeners: Set<Listener>, listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
