/**
 * Push to this browser: turned on by its user, and kept working from visit to visit.
 *
 * A note in the browser says for whom push is on and as what the server knows the subscription. The
 * note is the user's wish; the subscription itself may end or be replaced under it, by the browser
 * or because the server's key is another, and each visit puts that right. Only where the very
 * subscription that was noted is unknown to the server has somebody ended it there, and it stays
 * ended. One browser has one subscription, so it is on for one user at a time.
 */

import { ApiError, type BrowserSubscription, type PushDevice } from "./api.ts";
import type { Notifications } from "./client.ts";
import { browserEnvironment, type Environment } from "./environment.ts";
import type { ServerMessage } from "./protocol.ts";
import {
  browserPushEnvironment,
  type PushEnvironment,
  type Registration,
  type ShownPush,
  type Subscription,
} from "./push-environment.ts";
import type { OpenedPush, WorkerMessage } from "./worker-message.ts";

/**
 * `needs-install`: on iOS, the page has to be put on the home screen first. `default`: the browser
 * will ask the user. `off`: the browser would not even have to ask.
 */
export type PushStatus =
  | "checking"
  | "unsupported"
  | "needs-install"
  | "default"
  | "denied"
  | "off"
  | "on";

export interface PushState {
  readonly status: PushStatus;
  /** Of this browser while push is on. */
  readonly deviceId: string | undefined;
  /** Found by this visit: it was on, and has been turned off for this browser elsewhere. */
  readonly wasRevoked: boolean;
  /** Why this visit could not make sure that push works; it is tried again. */
  readonly error: ApiError | null;
}

export interface PushOptions {
  /** Of the user that is signed in. */
  client: Notifications;
  environment?: PushEnvironment & Pick<Environment, "onWake">;
}

export interface Push {
  /** Makes sure that push still works where it is on, and closes what is read elsewhere. */
  start(): void;
  stop(): void;
  getState(): PushState;
  subscribe(listener: () => void): () => void;
  /** To be called from a click, as the browser may ask. What is denied shows in the state. */
  enable(): Promise<void>;
  disable(): Promise<void>;
  /** All devices of the user. */
  devices(): Promise<PushDevice[]>;
  /** Ends push to a device; to this one as `disable` does. */
  revoke(id: string): Promise<void>;
  /** Sends a notification to that device alone; answers its id. */
  sendTest(id: string): Promise<string>;
  /** Calls `listener` when a push is clicked, in one page alone. Without a listener a page is opened. */
  onOpen(listener: (push: OpenedPush) => void): () => void;
}

export const createPush = (options: PushOptions): Push => new BrowserPush(options);

interface Note {
  /** Whom it is on for; absent when tokens do not say. */
  user?: string | undefined;
  id: string;
  endpoint: string;
}

const LOCK = "notify:push";
const INITIAL: PushState = {
  status: "checking",
  deviceId: undefined,
  wasRevoked: false,
  error: null,
};

class BrowserPush implements Push {
  readonly #client: Notifications;
  readonly #environment: PushEnvironment & Pick<Environment, "onWake">;
  readonly #listeners = new Set<() => void>();
  readonly #openers = new Set<(push: OpenedPush) => void>();
  #state = INITIAL;
  #stops: readonly (() => void)[] = [];
  #looks = 0;
  /** Counts what the user has asked for; the last counts. */
  #wishes = 0;

  constructor({ client, environment }: PushOptions) {
    this.#client = client;
    this.#environment = environment ?? {
      ...browserPushEnvironment(),
      onWake: browserEnvironment.onWake,
    };
  }

  getState = (): PushState => this.#state;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  onOpen(listener: (push: OpenedPush) => void): () => void {
    this.#openers.add(listener);
    return () => this.#openers.delete(listener);
  }

  start(): void {
    if (this.#stops.length > 0) return;
    const environment = this.#environment;
    const visit = () => void this.#visit();
    if (environment.support() === "full") {
      this.#stops = [
        environment.onPermission(visit),
        environment.onNote(() => void this.#look()),
        environment.onWake(() => this.#state.error && visit()),
        environment.onWorkerMessage((message, offer) => this.#heard(message, offer)),
        this.#client.onMessage((message) => void this.#tidy(message), { oncePerBrowser: true }),
      ];
    }
    visit();
  }

  stop(): void {
    for (const stop of this.#stops) stop();
    this.#stops = [];
  }

  async enable(): Promise<void> {
    if (this.#environment.support() !== "full") return;
    const wish = ++this.#wishes;
    // First of all, since browsers ask only in answer to a click.
    const permission = await this.#environment.askPermission();
    try {
      // Who signs out while the browser asks does not want it any more.
      if (permission === "granted" && wish === this.#wishes)
        await this.#alone(() => this.#connect());
    } finally {
      await this.#look();
    }
  }

  async disable(): Promise<void> {
    this.#wishes += 1;
    try {
      await this.#alone(async () => {
        const note = await this.#note();
        if (note) await Promise.all([this.#end(), this.#forget(note.id)]);
      });
    } finally {
      await this.#look();
    }
  }

  async devices(): Promise<PushDevice[]> {
    const devices = await this.#client.api.pushDevices();
    const { deviceId } = this.#state;
    if (deviceId && !devices.some(({ id }) => id === deviceId)) void this.#visit();
    return devices;
  }

  async revoke(id: string): Promise<void> {
    const note = await this.#note();
    if (note?.id === id) await this.disable();
    else await this.#forget(id);
  }

  async sendTest(id: string): Promise<string> {
    return (await this.#client.api.testPush(id)).id;
  }

  /** Puts right what has changed since the last visit, where push is on for this user. */
  async #visit(): Promise<void> {
    const isOn = async () => this.#isAllowed && (await this.#note()) !== undefined;
    const keep = async () => {
      if (await isOn()) await this.#alone(() => this.#keep());
    };
    await this.#look(await keep().then(() => ({ error: null }), failed));
  }

  async #keep(): Promise<void> {
    const { api } = this.#client;
    const [{ public_key }, devices, subscription] = await Promise.all([
      api.vapidKey(),
      api.pushDevices(),
      this.#subscription(),
    ]);
    // Another tab may have turned it off, or put it right, while this one waited.
    const note = await this.#note();
    if (!note) return;
    const own = devices.find(({ endpoint }) => endpoint === subscription?.endpoint);
    if (!own && subscription?.endpoint === note.endpoint) {
      this.#state = { ...this.#state, wasRevoked: true };
      await this.#end();
    } else if (own?.is_active && subscription && isMadeWith(subscription, public_key)) {
      await this.#register();
      // What another tab has noted just now may not have come to this one.
      if (own.id !== note.id)
        this.#keepNote({ ...note, id: own.id, endpoint: subscription.endpoint });
    } else await this.#connect();
  }

  /** Subscribes by the server's newest key, and tells the server. */
  async #connect(): Promise<void> {
    const { api } = this.#client;
    const [registration, { public_key, key_id }, note, user] = await Promise.all([
      this.#register(),
      api.vapidKey(),
      this.#note(),
      api.user(),
    ]);
    const subscription = await subscribed(registration, public_key);
    const { id } = await api.subscribePush({
      subscription: subscription.toJSON() as BrowserSubscription,
      device_info: this.#environment.device(),
      key_id,
      ...(note && note.endpoint !== subscription.endpoint && { replaces: note.id }),
    });
    this.#keepNote({ user, id, endpoint: subscription.endpoint });
  }

  /** Ends it in the browser, with all that is shown: the next to look may be somebody else. */
  async #end(): Promise<void> {
    try {
      const registration = await this.#environment.registration();
      const subscription = await registration?.pushManager.getSubscription();
      const ended = subscription?.unsubscribe();
      // At once, or a page that is closed meanwhile would leave it to be subscribed anew.
      this.#environment.setNote(null);
      this.#environment.setBadge(0);
      for (const shown of (await registration?.getNotifications()) ?? []) shown.close();
      await ended;
    } catch (cause) {
      throw refused("push_service", "The browser could not end push.", cause);
    }
  }

  #keepNote(note: Note): void {
    this.#environment.setNote(JSON.stringify(note));
  }

  async #register(): Promise<Registration> {
    return this.#environment.register().catch((cause: unknown) => {
      throw refused("service_worker", "The browser did not take the service worker.", cause);
    });
  }

  #subscription = async (): Promise<Subscription | null | undefined> =>
    (await this.#environment.registration())?.pushManager.getSubscription();

  async #forget(id: string): Promise<void> {
    await this.#client.api.unsubscribePush(id).catch((error: unknown) => {
      // It is gone, as it was to be.
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    });
  }

  /** The note, if push is on for this user. */
  async #note(): Promise<Note | undefined> {
    const note = noteIn(this.#environment.note());
    if (!note) return undefined;
    return note.user === (await this.#client.api.user()) ? note : undefined;
  }

  get #isAllowed(): boolean {
    const { support, permission } = this.#environment;
    return support() === "full" && permission() === "granted";
  }

  /** Looks how things stand in the browser. */
  async #look(change: Partial<PushState> = {}): Promise<void> {
    const look = ++this.#looks;
    const found: Partial<PushState> = await this.#found().catch(failed);
    this.#state = { ...this.#state, ...(look === this.#looks && found), ...change };
    for (const listener of [...this.#listeners]) listener();
  }

  async #found(): Promise<Partial<PushState>> {
    const { support, permission } = this.#environment;
    const deviceId = undefined;
    if (support() === "none") return { status: "unsupported", deviceId };
    if (support() === "needs-install") return { status: "needs-install", deviceId };
    const allowed = permission();
    if (allowed !== "granted") return { status: allowed, deviceId };
    const note = await this.#note();
    return note && (await this.#subscription())
      ? { status: "on", deviceId: note.id, wasRevoked: false }
      : { status: "off", deviceId };
  }

  /** Runs in one tab of the browser at a time. */
  async #alone(action: () => Promise<void>): Promise<void> {
    const { locks } = this.#environment;
    let isHeld = false;
    const hold = () => {
      isHeld = true;
      return action();
    };
    await (locks?.request(LOCK, {}, hold) ?? hold()).catch((error: unknown) => {
      // Browsers refuse locks where they refuse other storage.
      if (isHeld) throw error;
      return action();
    });
  }

  #heard(message: unknown, offer: (take: () => void) => void): void {
    const told = message as WorkerMessage | null;
    if (told?.type === "notify.changed") void this.#visit();
    if (told?.type !== "notify.open" || this.#state.status !== "on" || !this.#openers.size) return;
    offer(() => {
      for (const listener of [...this.#openers]) listener({ id: told.id, url: told.url });
    });
  }

  /** Closes what is shown of notifications that the server tells to be read or deleted. */
  async #tidy(message: ServerMessage): Promise<void> {
    if (!(await this.#note())) return;
    const registration = await this.#environment.registration();
    if (!registration) return;
    this.#environment.setBadge(this.#client.getState().unreadCount);
    const id = closedBy(message);
    if (id) for (const shown of await registration.getNotifications({ tag: id })) shown.close();
    // Which ones a read-all covers, or what happened while no page was open, is looked up.
    if (id === null) await this.#closeRead(await registration.getNotifications());
  }

  async #closeRead(pushes: readonly ShownPush[]): Promise<void> {
    await Promise.all(
      pushes.map(async (shown) => {
        const { id } = (shown.data ?? {}) as { id?: unknown };
        if (typeof id === "string" && (await this.#isOver(id))) shown.close();
      }),
    );
  }

  async #isOver(wanted: string): Promise<boolean> {
    const { api, getState } = this.#client;
    // What is held as unread may be of before, when the client starts anew.
    if (getState().items.find(({ id }) => id === wanted)?.read_at) return true;
    return api.get(wanted).then(
      ({ read_at }) => read_at !== null,
      (error: unknown) => error instanceof ApiError && error.status === 404,
    );
  }
}

function noteIn(text: string | null): Note | null {
  try {
    return JSON.parse(text ?? "null") as Note | null;
  } catch {
    return null;
  }
}

/** The notification that is read or gone with `message`; `null`: any may be. */
function closedBy(message: ServerMessage): string | null | undefined {
  switch (message.type) {
    case "notification_deleted":
      return message.notification_id;
    case "read_status_updated":
      return message.read_at === null ? undefined : message.notification_id;
    case "sync_complete":
      return null;
    default:
      return undefined;
  }
}

/** A subscription made with `key`: the one there is, or another in its place. */
async function subscribed({ pushManager }: Registration, key: string): Promise<Subscription> {
  const held = await pushManager.getSubscription();
  if (held && isMadeWith(held, key)) return held;
  try {
    await held?.unsubscribe();
    return await pushManager.subscribe({
      userVisibleOnly: true,
      applicationServerKey: bytesOf(key),
    });
  } catch (cause) {
    throw refused("push_service", "The browser could not reach its push service.", cause);
  }
}

/** What a refusal changes in the state; anything else is a fault of ours. */
function failed(error: unknown): Pick<PushState, "error"> {
  if (!(error instanceof ApiError)) throw error;
  return { error };
}

const refused = (code: string, message: string, cause: unknown) =>
  Object.assign(new ApiError(0, { code, message }), { cause });

function isMadeWith({ options }: Subscription, key: string): boolean {
  const own = new Uint8Array(options.applicationServerKey ?? []);
  const wanted = bytesOf(key);
  return own.length === wanted.length && own.every((byte, at) => byte === wanted[at]);
}

const bytesOf = (base64url: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(base64url.replaceAll("-", "+").replaceAll("_", "/")), (character) =>
    character.charCodeAt(0),
  );
