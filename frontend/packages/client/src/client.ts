/** Joins the REST calls, the feed of messages and the store into one live inbox. */

import { type Api, ApiError, createApi, type Notification, type TokenProvider } from "./api.ts";
import { type Change, Changes, isSame } from "./changes.ts";
import { browserEnvironment, type Environment } from "./environment.ts";
import { Feed, type LiveMessage, type Standing } from "./feed.ts";
import { applyMessage, type Inbox, restartAt, type View } from "./inbox.ts";
import { Pages } from "./pages.ts";
import type { Authenticated, ServerMessage } from "./protocol.ts";
import { type NotificationsState, Store } from "./store.ts";
import { inTime, ofOneUser, unexpired } from "./token.ts";

export interface NotificationsOptions {
  /** Origin of the API, such as `https://notify.example.com`. */
  baseUrl: string;
  /** Address of the socket; by default the one under `baseUrl`. */
  wsUrl?: string;
  token: TokenProvider;
  /** Notifications fetched at once. */
  pageSize?: number;
  environment?: Environment;
}

export interface ListenOptions {
  /** Calls in one tab of the browser alone, as for a sound. */
  oncePerBrowser?: boolean;
}

/** Changes are shown at once; one that fails is taken back and is among `failures` of the state. */
export interface Notifications {
  /** Loads the newest page and connects; after `stop`, resumes where it stopped. */
  start(): void;
  stop(): void;
  getState(): NotificationsState;
  /** Calls `listener` after every change of the state; returns how to end that. */
  subscribe(listener: () => void): () => void;
  /** Calls `listener` for each unread notification that arrives. */
  onArrival(listener: (item: Notification) => void, options?: ListenOptions): () => void;
  /** Calls `listener` for each message of the server, once it is applied. */
  onMessage(listener: (message: ServerMessage) => void, options?: ListenOptions): () => void;
  /** Shows everything or only what is unread. */
  show(view: View): Promise<void>;
  /** Fetches the next older page, if there is one and none is under way. */
  loadMore(): Promise<void>;
  /** Fetches the newest page anew, as after an error. */
  refresh(): Promise<void>;
  markRead(id: string): Promise<void>;
  markUnread(id: string): Promise<void>;
  /** Without `upTo`, covers what this client knows of, and nothing that arrives meanwhile. */
  markAllRead(only?: { upTo?: number; type?: Notification["type"] }): Promise<void>;
  remove(id: string): Promise<void>;
  /** What the four above do; the `change` of a failure can be tried again by it. */
  change(change: Change): Promise<void>;
  dismissFailures(): void;
  /** Connects again after the server closed for good. */
  reconnect(): void;
  readonly api: Api;
}

const SOCKET_PATH = "/api/v1/notifications/ws";
const PAGE_SIZE = 20;
/** How long messages that are known to exist may take to arrive. */
const BEHIND_MS = 5_000;
/** By then the server has told what it has confirmed, though messages were lost on their way. */
const TOLD_MS = 15_000;
/** Acknowledgements are gathered for this long. */
const ACK_MS = 1_000;

export function createNotifications(options: NotificationsOptions): Notifications {
  return new LiveInbox(options);
}

type Listeners<Told> = Map<(told: Told) => void, ListenOptions>;

class LiveInbox implements Notifications {
  readonly api: Api;
  readonly #environment: Environment;
  readonly #changes: Changes;
  readonly #store: Store;
  readonly #pages: Pages;
  readonly #feed: Feed;
  readonly #arrivalListeners: Listeners<Notification> = new Map();
  readonly #messageListeners: Listeners<ServerMessage> = new Map();
  /** What is held is of before, until the newest page has come. */
  #startsAnew = false;
  /** When the changes were marked last. */
  #markedAt = 0;
  #cancelCatchUp: (() => void) | undefined;
  #cancelAck: (() => void) | undefined;

  constructor({
    baseUrl,
    wsUrl = baseUrl.replace(/^http/, "ws").replace(/\/$/, "") + SOCKET_PATH,
    pageSize = PAGE_SIZE,
    environment = browserEnvironment,
    ...options
  }: NotificationsOptions) {
    const token = inTime(unexpired(ofOneUser(options.token), environment.now), environment);
    this.#environment = environment;
    this.api = createApi({ baseUrl, token, environment });
    this.#changes = new Changes({
      send: (change) => this.#send(change),
      inbox: () => this.#store.inbox,
      now: () => new Date(environment.now()).toISOString(),
      onChange: () => this.#store.overlay(),
      onFailure: (failure) => {
        this.#store.set({ failures: [...this.getState().failures, failure] });
      },
    });
    this.#store = new Store((inbox) => this.#changes.over(inbox));
    this.#pages = new Pages({
      fetch: (query, signal) => this.api.list({ limit: pageSize, ...query }, signal),
      store: this.#store,
      onInbox: (inbox) => {
        const before = this.#store.inbox;
        this.#setInbox(inbox);
        this.#announceUntold(before);
      },
      onReplaced: () => this.#feed.loaded(),
    });
    this.#feed = new Feed({
      url: wsUrl,
      token,
      environment,
      standing: () => ({ inbox: this.#store.inbox, status: this.getState().status }),
      load: () => this.#pages.refresh(),
      onConnection: (connection) => this.#store.set({ connection }),
      onAuthenticated: (message, resumed) => this.#authenticated(message, resumed),
      onMessage: (message) => {
        this.#received(message);
        this.#tell(this.#messageListeners, message);
      },
      onEarlyMessage: (message) => this.#pages.note(message),
      onStanding: (standing, hasAll) => this.#resemble(standing, hasAll),
    });
  }

  getState = (): NotificationsState => this.#store.get();

  subscribe = (listener: () => void): (() => void) => this.#store.subscribe(listener);

  onArrival(listener: (item: Notification) => void, options: ListenOptions = {}): () => void {
    this.#arrivalListeners.set(listener, options);
    return () => this.#arrivalListeners.delete(listener);
  }

  onMessage(listener: (message: ServerMessage) => void, options: ListenOptions = {}): () => void {
    this.#messageListeners.set(listener, options);
    return () => this.#messageListeners.delete(listener);
  }

  start(): void {
    if (this.getState().status !== "ready") this.#store.set({ status: "loading", error: null });
    this.#feed.start();
  }

  stop(): void {
    this.#feed.stop();
    this.#pages.abandon();
    this.#cancelTimers();
  }

  reconnect(): void {
    this.#feed.reconnect();
  }

  show = (view: View): Promise<void> => this.#pages.show(view);

  loadMore = (): Promise<void> => this.#pages.loadMore();

  refresh = (): Promise<void> => this.#pages.refresh();

  markRead = (id: string): Promise<void> => this.change({ kind: "read", id });

  markUnread = (id: string): Promise<void> => this.change({ kind: "unread", id });

  remove = (id: string): Promise<void> => this.change({ kind: "remove", id });

  markAllRead({ upTo = this.#known(), type }: { upTo?: number; type?: Notification["type"] } = {}) {
    return this.change({ kind: "read_all", upTo, type });
  }

  change(change: Change): Promise<void> {
    this.#keepFailures((failed) => !isSame(failed, change));
    return this.#changes.make(change);
  }

  dismissFailures(): void {
    this.#keepFailures(() => false);
  }

  #keepFailures(isKept: (change: Change) => boolean): void {
    const { failures } = this.getState();
    const kept = failures.filter(({ change }) => isKept(change));
    if (kept.length < failures.length) this.#store.set({ failures: kept });
  }

  async #send(change: Change): Promise<void> {
    switch (change.kind) {
      case "read":
        await this.api.markRead(change.id);
        break;
      case "unread":
        await this.api.markUnread(change.id);
        break;
      case "read_all":
        await this.api.markAllRead({ up_to: change.upTo ?? null, type: change.type ?? null });
        break;
      case "remove":
        await this.api.remove(change.id).catch((error) => {
          // It is gone, as it was to be.
          if (!(error instanceof ApiError && error.status === 404)) throw error;
        });
    }
  }

  /** The last change that was told, though earlier ones may be missing. */
  #known(): number | undefined {
    const { seq, begun, items } = this.#store.inbox;
    return seq === undefined ? undefined : Math.max(begun, items[0]?.position ?? 0);
  }

  /** Takes over what the leader holds, unless all of that is here. */
  #resemble({ inbox, status }: Standing, hasAll: boolean): void {
    if (status === "ready") {
      if (hasAll) this.#setInbox({ ...this.#store.inbox, syncing: inbox.syncing });
      else this.#pages.replace(inbox);
    } else if (this.getState().status !== "ready" && !this.#pages.isFetching) {
      void this.#pages.refresh();
    }
  }

  #authenticated(message: Authenticated, resumed: boolean): void {
    this.#mark();
    if (resumed) {
      this.#apply(message);
    } else {
      void this.#startAnew(message);
    }
  }

  async #startAnew(message: Authenticated): Promise<void> {
    this.#startsAnew = true;
    this.#setInbox(restartAt(this.#store.inbox, message));
    await this.#pages.refresh();
    this.#startsAnew = false;
    if (this.getState().status === "ready") this.#changes.reach();
  }

  #received(message: LiveMessage): void {
    switch (message.type) {
      case "notification":
      case "read_status_updated":
      case "notification_deleted":
        this.#pages.note(message);
        this.#applyAndAnnounce(message);
        this.#catchUpTo(message.seq);
        this.#acknowledge();
        break;
      case "pong":
        this.#apply(message);
        this.#catchUpTo(message.seq);
        // Pongs follow each other closely where the page is looked at again and again.
        if (this.#isBehind(message.seq) || this.#environment.now() - this.#markedAt < TOLD_MS)
          break;
        this.#changes.reach();
        this.#mark();
        break;
      case "sync_complete":
        this.#apply(message);
        if (!this.#startsAnew) this.#changes.reach();
        this.#acknowledge();
        if (this.getState().status === "error") void this.#pages.refresh();
        break;
      default:
        this.#apply(message);
    }
  }

  #mark(): void {
    this.#markedAt = this.#environment.now();
    this.#changes.mark();
  }

  #applyAndAnnounce(message: ServerMessage): void {
    const before = this.#store.inbox;
    this.#apply(message);
    if (message.type !== "notification" || message.data.read_at != null) return;
    const { id } = message.data;
    if (before.items.some((item) => item.id === id)) return;
    const arrived = this.#store.inbox.items.find((item) => item.id === id);
    if (arrived) this.#announce(arrived);
  }

  /** Announces what came with a page, oldest first, and was not told by a message before. */
  #announceUntold({ seq, begun, items }: Inbox): void {
    if (seq === undefined) return;
    const known = new Set(items.map(({ id }) => id));
    const isUntold = ({ id, position, read_at }: Notification) =>
      position > begun && read_at === null && !known.has(id);
    for (const item of this.#store.inbox.items.filter(isUntold).toReversed()) this.#announce(item);
  }

  #announce(arrived: Notification): void {
    this.#tell(this.#arrivalListeners, arrived);
  }

  #tell<Told>(listeners: Listeners<Told>, told: Told): void {
    for (const [listener, { oncePerBrowser = false }] of [...listeners]) {
      if (!oncePerBrowser || this.#feed.leads) listener(told);
    }
  }

  #apply(message: ServerMessage): void {
    const before = this.#store.inbox;
    const after = applyMessage(before, message);
    if (after !== before) this.#setInbox(after);
  }

  #setInbox(inbox: Inbox): void {
    this.#store.set({ inbox });
    this.#changes.settle();
    this.#pages.complete();
  }

  /** Resumes from what is held unless all changes up to `seq` arrive soon: some were lost. */
  #catchUpTo(seq: number): void {
    if (this.#cancelCatchUp || !this.#isBehind(seq)) return;
    this.#cancelCatchUp = this.#environment.after(BEHIND_MS, () => {
      this.#cancelCatchUp = undefined;
      if (this.#isBehind(seq)) this.#feed.resume();
    });
  }

  #isBehind(seq: number): boolean {
    const { syncing, begun } = this.#store.inbox;
    return !syncing && begun < seq;
  }

  /** Tells the server how far this client has got, which is what delivers in-app. */
  #acknowledge(): void {
    this.#cancelAck ??= this.#environment.after(ACK_MS, () => {
      this.#cancelAck = undefined;
      const { seq } = this.#store.inbox;
      if (seq !== undefined) this.#feed.send({ type: "ack", seq });
    });
  }

  #cancelTimers(): void {
    this.#cancelCatchUp?.();
    this.#cancelAck?.();
    this.#cancelCatchUp = this.#cancelAck = undefined;
  }
}
