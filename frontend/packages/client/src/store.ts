import type { ApiError } from "./api.ts";
import type { ConnectionState } from "./connection.ts";
import { EMPTY_INBOX, type Inbox } from "./inbox.ts";

export interface NotificationsState extends Inbox {
  /** Of the newest page: `error` also when older items are still shown. */
  readonly status: "idle" | "loading" | "ready" | "error";
  readonly error: ApiError | null;
  readonly hasMore: boolean;
  /** Of the next older page. */
  readonly more: "idle" | "loading" | "error";
  readonly connection: ConnectionState;
}

/** Holds one immutable state and tells its listeners when another takes its place. */
export class Store {
  #state: NotificationsState = {
    ...EMPTY_INBOX,
    status: "idle",
    error: null,
    hasMore: false,
    more: "idle",
    connection: { name: "idle" },
  };
  readonly #listeners = new Set<() => void>();

  get = (): NotificationsState => this.#state;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  set(change: Partial<NotificationsState>): void {
    const state = { ...this.#state, ...change };
    this.#state = { ...state, hasMore: state.cursor !== null };
    for (const listener of [...this.#listeners]) listener();
  }
}
