import type { ApiError, Notification } from "./api.ts";
import type { Failure } from "./changes.ts";
import type { ConnectionState } from "./connection.ts";
import { EMPTY_INBOX, type Inbox, shownIn, type View } from "./inbox.ts";

export interface NotificationsState {
  /** Those of `view` that are held, newest first, the user's own changes applied. */
  readonly items: readonly Notification[];
  /** Of the whole inbox, the user's own changes applied. */
  readonly unreadCount: number;
  /** Unread by type, zeros left out; `null` while it is not known. */
  readonly byType: Readonly<Record<string, number>> | null;
  /** Every change up to this one is reflected in `items`; `undefined` before the first page. */
  readonly seq: number | undefined;
  readonly view: View;
  /** Of the newest page: `error` also when older items are still shown. */
  readonly status: "idle" | "loading" | "ready" | "error";
  readonly error: ApiError | null;
  readonly hasMore: boolean;
  /** Of the next older page. */
  readonly more: "idle" | "loading" | "error";
  readonly connection: ConnectionState;
  /** The changes that were taken back, until they are dismissed or made again; the last is last. */
  readonly failures: readonly Failure[];
}

type Derived = "items" | "unreadCount" | "byType" | "seq" | "hasMore";

/** What the state is made of: the server's part of it is `inbox`. */
interface Sources extends Omit<NotificationsState, Derived> {
  readonly inbox: Inbox;
}

/** Holds one immutable state and tells its listeners when another takes its place. */
export class Store {
  #sources: Sources = {
    inbox: EMPTY_INBOX,
    view: "all",
    status: "idle",
    error: null,
    more: "idle",
    connection: { name: "idle" },
    failures: [],
  };
  readonly #overlay: (inbox: Inbox) => Inbox;
  readonly #listeners = new Set<() => void>();
  #items: readonly Notification[] = [];
  #state: NotificationsState;

  /** @param overlay the server's inbox with the changes applied that it has not told yet. */
  constructor(overlay: (inbox: Inbox) => Inbox) {
    this.#overlay = overlay;
    this.#state = this.#derived();
  }

  get = (): NotificationsState => this.#state;

  /** As the server has told it. */
  get inbox(): Inbox {
    return this.#sources.inbox;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  set(change: Partial<Sources>): void {
    this.#sources = { ...this.#sources, ...change };
    const isOfItems = "inbox" in change || "view" in change;
    this.#tell(isOfItems ? this.#derived() : { ...this.#state, ...change });
  }

  /** Derives the state anew, since the overlay is another. */
  overlay(): void {
    this.#tell(this.#derived());
  }

  #derived(): NotificationsState {
    const { inbox, ...rest } = this.#sources;
    const shown = this.#overlay(inbox);
    const { unreadCount, byType, seq } = shown;
    this.#items = unlessSame(this.#items, shownIn(rest.view, shown));
    const hasMore = inbox.extents[rest.view]?.cursor != null;
    return { ...rest, items: this.#items, unreadCount, byType, seq, hasMore };
  }

  #tell(state: NotificationsState): void {
    this.#state = state;
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch (error) {
        // One that fails is to be heard of, and keeps nothing from the others.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** The array that is there already, if it holds the same: who watches it need not look again. */
function unlessSame<Item>(there: readonly Item[], now: readonly Item[]): readonly Item[] {
  const isSame = there.length === now.length && now.every((item, at) => item === there[at]);
  return isSame ? there : now;
}
