/** Joins the REST calls, the socket and the store into one live inbox. */

import { type Api, ApiError, createApi, type NotificationPage, type TokenProvider } from "./api.ts";
import { Connection } from "./connection.ts";
import { browserEnvironment, type Environment } from "./environment.ts";
import {
  appendPage,
  applyMessage,
  type Inbox,
  type InboxItem,
  replaceByPage,
  restartAt,
} from "./inbox.ts";
import type { Authenticated, InboxMessage, ServerMessage } from "./protocol.ts";
import { type NotificationsState, Store } from "./store.ts";

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

export interface Notifications {
  /** Loads the newest page and connects; after `stop`, resumes where it stopped. */
  start(): void;
  stop(): void;
  getState(): NotificationsState;
  /** Calls `listener` after every change of the state; returns how to end that. */
  subscribe(listener: () => void): () => void;
  /** Calls `listener` for each unread notification that arrives over the socket. */
  onArrival(listener: (item: InboxItem) => void): () => void;
  /** Fetches the next older page, if there is one and none is under way. */
  loadMore(): Promise<void>;
  /** Fetches the newest page anew, as after an error. */
  refresh(): Promise<void>;
  /** Connects again after the server closed for good. */
  reconnect(): void;
  readonly api: Api;
}

const SOCKET_PATH = "/api/v1/notifications/ws";
const PAGE_SIZE = 20;
/** How long messages that are known to exist may take to arrive. */
const BEHIND_MS = 5_000;
/** Acknowledgements are gathered for this long. */
const ACK_MS = 1_000;

export function createNotifications(options: NotificationsOptions): Notifications {
  return new LiveInbox(options);
}

class LiveInbox implements Notifications {
  readonly api: Api;
  readonly #environment: Environment;
  readonly #pageSize: number;
  readonly #store = new Store();
  readonly #connection: Connection;
  readonly #arrivalListeners = new Set<(item: InboxItem) => void>();
  /** Messages kept for the pages being fetched: each takes those since its request. */
  readonly #journals = new Set<InboxMessage[]>();
  #requests = new AbortController();
  #refreshes = 0;
  #cancelCatchUp: (() => void) | undefined;
  #cancelAck: (() => void) | undefined;

  constructor({
    baseUrl,
    wsUrl = baseUrl.replace(/^http/, "ws") + SOCKET_PATH,
    token,
    pageSize = PAGE_SIZE,
    environment = browserEnvironment,
  }: NotificationsOptions) {
    this.#environment = environment;
    this.#pageSize = pageSize;
    this.api = createApi({ baseUrl, token, environment });
    this.#connection = new Connection({
      url: wsUrl,
      token,
      environment,
      since: () => this.#store.get().seq,
      onState: (connection) => this.#store.set({ connection }),
      onAuthenticated: (message, resumed) => this.#authenticated(message, resumed),
      onMessage: (message) => this.#received(message),
    });
  }

  getState = (): NotificationsState => this.#store.get();

  subscribe = (listener: () => void): (() => void) => this.#store.subscribe(listener);

  onArrival(listener: (item: InboxItem) => void): () => void {
    this.#arrivalListeners.add(listener);
    return () => this.#arrivalListeners.delete(listener);
  }

  start(): void {
    if (this.getState().status === "ready") {
      this.#connection.start();
      return;
    }
    const { signal } = this.#requests;
    // The page comes first, so that the socket resumes from exactly what it shows.
    void this.refresh().then(() => {
      if (!signal.aborted) this.#connection.start();
    });
  }

  stop(): void {
    this.#requests.abort();
    this.#requests = new AbortController();
    this.#cancelTimers();
    this.#connection.stop();
    const { status } = this.getState();
    this.#store.set({ more: "idle", status: status === "loading" ? "idle" : status });
  }

  reconnect(): void {
    this.#connection.start();
  }

  async refresh(): Promise<void> {
    this.#refreshes += 1;
    const refresh = this.#refreshes;
    const isLatest = () => refresh === this.#refreshes;
    this.#store.set({ status: "loading", error: null });
    await this.#fetchPage(
      undefined,
      (page, since) => {
        if (!isLatest()) return;
        const inbox = replaceByPage(this.getState(), page, since);
        this.#store.set({ ...inbox, status: "ready", more: "idle" });
      },
      (error) => {
        if (isLatest()) this.#store.set({ status: "error", error });
      },
    );
  }

  async loadMore(): Promise<void> {
    const { cursor, more } = this.getState();
    if (cursor === null || more === "loading") return;
    this.#store.set({ more: "loading" });
    await this.#fetchPage(
      cursor,
      (page, since) => {
        // A refresh meanwhile has put other pages in place of the one this continues.
        if (this.getState().cursor !== cursor) return;
        this.#store.set({ ...appendPage(this.getState(), page, since), more: "idle" });
      },
      () => this.#store.set({ more: "error" }),
    );
  }

  async #fetchPage(
    cursor: string | undefined,
    onPage: (page: NotificationPage, since: readonly InboxMessage[]) => void,
    onError: (error: ApiError) => void,
  ): Promise<void> {
    const { signal } = this.#requests;
    const since: InboxMessage[] = [];
    this.#journals.add(since);
    try {
      const query = { limit: this.#pageSize, ...(cursor !== undefined && { cursor }) };
      const page = await this.api.list(query, signal);
      if (!signal.aborted) onPage(page, since);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      onError(error);
    } finally {
      this.#journals.delete(since);
    }
  }

  #authenticated(message: Authenticated, resumed: boolean): void {
    if (resumed) {
      this.#apply(message);
    } else {
      this.#store.set(restartAt(this.getState(), message));
      void this.refresh();
    }
  }

  #received(message: Exclude<ServerMessage, Authenticated>): void {
    switch (message.type) {
      case "notification":
      case "read_status_updated":
      case "notification_deleted":
        for (const journal of this.#journals) journal.push(message);
        this.#applyInboxMessage(message);
        this.#catchUpTo(message.seq);
        this.#acknowledge();
        break;
      case "pong":
        this.#apply(message);
        this.#catchUpTo(message.seq);
        break;
      case "sync_complete":
        this.#apply(message);
        this.#acknowledge();
        if (this.getState().status === "error") void this.refresh();
        break;
      default:
        this.#apply(message);
    }
  }

  #applyInboxMessage(message: InboxMessage): void {
    const before = this.getState();
    this.#apply(message);
    if (message.type !== "notification" || message.data.read_at != null) return;
    const { id } = message.data;
    if (before.items.some((item) => item.id === id)) return;
    const arrived = this.getState().items.find((item) => item.id === id);
    if (!arrived) return;
    for (const listener of [...this.#arrivalListeners]) listener(arrived);
  }

  #apply(message: ServerMessage): void {
    const before: Inbox = this.getState();
    const after = applyMessage(before, message);
    if (after !== before) this.#store.set(after);
  }

  /** Resumes from what is held unless all changes up to `seq` arrive soon: some were lost. */
  #catchUpTo(seq: number): void {
    if (this.#cancelCatchUp || !this.#isBehind(seq)) return;
    this.#cancelCatchUp = this.#environment.after(BEHIND_MS, () => {
      this.#cancelCatchUp = undefined;
      if (this.#isBehind(seq)) this.#connection.resume();
    });
  }

  #isBehind(seq: number): boolean {
    const { syncing, begun } = this.getState();
    return !syncing && begun < seq;
  }

  /** Tells the server how far this client has got, which is what delivers in-app. */
  #acknowledge(): void {
    this.#cancelAck ??= this.#environment.after(ACK_MS, () => {
      this.#cancelAck = undefined;
      const { seq } = this.getState();
      if (seq !== undefined) this.#connection.send({ type: "ack", seq });
    });
  }

  #cancelTimers(): void {
    this.#cancelCatchUp?.();
    this.#cancelAck?.();
    this.#cancelCatchUp = this.#cancelAck = undefined;
  }
}
