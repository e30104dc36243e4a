/** Fetches the pages of the view that is shown, and joins them to what was told meanwhile. */

import { ApiError, type NotificationPage, type NotificationQuery } from "./api.ts";
import { appendPage, type Inbox, replaceByPage, type View } from "./inbox.ts";
import { type InboxMessage, isInboxMessage, type ServerMessage } from "./protocol.ts";
import type { Store } from "./store.ts";

export interface PagesOptions {
  /** Throws `ApiError`. */
  fetch: (query: NotificationQuery, signal: AbortSignal) => Promise<NotificationPage>;
  store: Store;
  onInbox: (inbox: Inbox) => void;
  /** The newest page has taken the place of all that was held. */
  onReplaced: () => void;
}

const QUERIES: Readonly<Record<View, NotificationQuery>> = { all: {}, unread: { is_read: false } };

export class Pages {
  readonly #options: PagesOptions;
  /** Messages kept for the pages being fetched: each takes those since its request. */
  readonly #journals = new Set<InboxMessage[]>();
  #requests = new AbortController();
  /** Counts the first pages asked for; only the last of them is wanted. */
  #wanted = 0;

  constructor(options: PagesOptions) {
    this.#options = options;
  }

  get isFetching(): boolean {
    return this.#journals.size > 0;
  }

  /** Fetches the newest page of the view in place of all that is held. */
  async refresh(): Promise<void> {
    const { view } = this.#options.store.get();
    await this.#fetchFirst(view, (page, since) => {
      const inbox = replaceByPage(this.#options.store.inbox, view, page, since);
      this.replace(inbox);
      this.#options.onReplaced();
    });
  }

  /** Takes `inbox`, which another has fetched, in place of all that is held. */
  replace(inbox: Inbox): void {
    this.#wanted += 1;
    this.#options.store.set({ status: "ready", error: null, more: "idle" });
    this.#options.onInbox(inbox);
  }

  async show(view: View): Promise<void> {
    const { store } = this.#options;
    if (store.get().view === view) return;
    store.set({ view, more: "idle" });
    await this.complete();
  }

  /** Fetches what the view lacks to be shown honestly: its first page, or more where none is left. */
  async complete(): Promise<void> {
    const { store, onInbox } = this.#options;
    const { status, view, items, more } = store.get();
    if (status !== "ready") return;
    if (store.inbox.extents[view]) {
      if (items.length === 0 && more === "idle") await this.loadMore();
      return;
    }
    await this.#fetchFirst(view, (page, since) => {
      store.set({ status: "ready", more: "idle" });
      onInbox(appendPage(store.inbox, view, page, since));
    });
  }

  async loadMore(): Promise<void> {
    const { store, onInbox } = this.#options;
    const { view, more } = store.get();
    const cursor = store.inbox.extents[view]?.cursor;
    if (cursor == null || more === "loading") return;
    store.set({ more: "loading" });
    const isWanted = () =>
      store.get().view === view && store.inbox.extents[view]?.cursor === cursor;
    await this.#fetch(
      { ...QUERIES[view], cursor },
      (page, since) => {
        // Meanwhile another view, or another page, may have taken the place of what this continues.
        if (!isWanted()) return;
        store.set({ more: "idle" });
        onInbox(appendPage(store.inbox, view, page, since));
      },
      () => {
        if (isWanted()) store.set({ more: "error" });
      },
    );
  }

  /** Keeps `message` for the pages that are under way. */
  note(message: ServerMessage): void {
    if (!isInboxMessage(message)) return;
    for (const journal of this.#journals) journal.push(message);
  }

  /** Gives up what is under way. */
  abandon(): void {
    this.#requests.abort();
    this.#requests = new AbortController();
    const { status } = this.#options.store.get();
    this.#options.store.set({ more: "idle", status: status === "loading" ? "idle" : status });
  }

  async #fetchFirst(
    view: View,
    onPage: (page: NotificationPage, since: readonly InboxMessage[]) => void,
  ): Promise<void> {
    const { store } = this.#options;
    this.#wanted += 1;
    const wanted = this.#wanted;
    store.set({ status: "loading", error: null });
    await this.#fetch(
      QUERIES[view],
      (page, since) => {
        if (wanted === this.#wanted) onPage(page, since);
      },
      (error) => {
        if (wanted === this.#wanted) store.set({ status: "error", error });
      },
    );
  }

  async #fetch(
    query: NotificationQuery,
    onPage: (page: NotificationPage, since: readonly InboxMessage[]) => void,
    onError: (error: ApiError) => void,
  ): Promise<void> {
    const { signal } = this.#requests;
    const since: InboxMessage[] = [];
    this.#journals.add(since);
    try {
      const page = await this.#options.fetch(query, signal);
      if (!signal.aborted) onPage(page, since);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      onError(error);
    } finally {
      this.#journals.delete(since);
    }
  }
}
