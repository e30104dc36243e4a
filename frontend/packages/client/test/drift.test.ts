import { expect, test } from "vitest";
import type { Notification, NotificationPage } from "../src/api.ts";
import {
  appendPage,
  applyMessage,
  EMPTY_INBOX,
  type Inbox,
  replaceByPage,
  restartAt,
} from "../src/inbox.ts";
import type { Authenticated, InboxMessage } from "../src/protocol.ts";
import { authenticated, notification } from "./support.ts";

const PAGE_SIZE = 4;
const TYPES = ["task", "user"] as const;

/** A small inbox that changes as the real one does, and remembers what it told. */
class ModelServer {
  seq = 0;
  readonly frames: InboxMessage[] = [];
  readonly #items = new Map<string, Notification>();
  readonly #deleted = new Map<string, number>();
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** Newest first. */
  get items(): Notification[] {
    return [...this.#items.values()].toSorted((a, b) => placeOf(b) - placeOf(a));
  }

  get unreadCount(): number {
    return this.items.filter(({ read_at }) => read_at === null).length;
  }

  change(): void {
    this.seq += 1;
    const chosen = this.items[Math.floor(this.#random() * this.#items.size)];
    const kind = this.#random();
    if (!chosen || kind < 0.5) this.#create();
    else if (kind < 0.7) this.#markRead(chosen);
    else if (kind < 0.85) this.#delete(chosen);
    else this.#markAllRead();
  }

  page(cursor?: number): NotificationPage {
    const older = this.items.filter((item) => placeOf(item) < (cursor ?? Number.POSITIVE_INFINITY));
    const items = older.slice(0, PAGE_SIZE);
    const has_more = older.length > PAGE_SIZE;
    const last = items.at(-1);
    return structuredClone({
      items,
      has_more,
      next_cursor: has_more && last ? String(placeOf(last)) : null,
      unread_count: this.unreadCount,
      seq: this.seq,
    });
  }

  /** Net changes after `since`, in order; the items of one change share its number. */
  netChanges(since: number): InboxMessage[] {
    const changed: InboxMessage[] = this.items.map((data) => this.#frame(data));
    const deleted: InboxMessage[] = [...this.#deleted].map(([notification_id, seq]) => ({
      type: "notification_deleted",
      seq,
      unread_count: this.unreadCount,
      notification_id,
    }));
    return structuredClone(
      [...changed, ...deleted].filter(({ seq }) => seq > since).toSorted((a, b) => a.seq - b.seq),
    );
  }

  #frame(data: Notification): InboxMessage {
    return { type: "notification", seq: data.seq, unread_count: this.unreadCount, data };
  }

  #tell(frame: InboxMessage): void {
    this.frames.push(structuredClone(frame));
  }

  #create(): void {
    const type = TYPES[Math.floor(this.#random() * TYPES.length)] ?? "task";
    const created = notification(this.seq, { type });
    this.#items.set(created.id, created);
    this.#tell(this.#frame(created));
  }

  #markRead(item: Notification): void {
    const read_at = item.read_at === null ? "read" : null;
    this.#items.set(item.id, { ...item, read_at, seq: this.seq });
    this.#tellRead({ notification_id: item.id, read_at });
  }

  #markAllRead(): void {
    const up_to = this.seq - 1 - Math.floor(this.#random() * 3);
    const notification_type = this.#random() < 0.5 ? "task" : null;
    for (const item of this.items) {
      const covered =
        item.read_at === null &&
        placeOf(item) <= up_to &&
        (notification_type ?? item.type) === item.type;
      if (covered) this.#items.set(item.id, { ...item, read_at: "read", seq: this.seq });
    }
    this.#tellRead({ notification_id: null, read_at: "read", up_to, notification_type });
  }

  #tellRead(fields: {
    notification_id: string | null;
    read_at: string | null;
    up_to?: number;
    notification_type?: string | null;
  }): void {
    this.#tell({
      type: "read_status_updated",
      seq: this.seq,
      unread_count: this.unreadCount,
      ...fields,
    });
  }

  #delete(item: Notification): void {
    this.#items.delete(item.id);
    this.#deleted.set(item.id, this.seq);
    this.#tell({
      type: "notification_deleted",
      seq: this.seq,
      unread_count: this.unreadCount,
      notification_id: item.id,
    });
  }
}

interface Fetch {
  cursor: string | undefined;
  page: NotificationPage | undefined;
  since: InboxMessage[];
}

/** A client whose stream lags, breaks and resumes, and whose pages come late. */
class ModelClient {
  inbox: Inbox = EMPTY_INBOX;
  readonly #server: ModelServer;
  #stream: InboxMessage[] = [];
  #seen = 0;
  #syncEnd: number | undefined;
  #hasLost = false;
  #fetch: Fetch | undefined;

  constructor(server: ModelServer) {
    this.#server = server;
    this.inbox = replaceByPage(EMPTY_INBOX, server.page(), []);
    this.reconnect();
  }

  /** Leaves the socket where it is and resumes; what was on its way is lost. */
  reconnect(): void {
    const { seq, unreadCount } = this.#server;
    this.#hasLost = false;
    this.#stream = this.#server.netChanges(this.inbox.seq ?? 0);
    this.#seen = this.#server.frames.length;
    this.inbox = applyMessage(
      this.inbox,
      authenticated({ seq, unread_count: unreadCount }) as Authenticated,
    );
    this.#syncEnd = seq;
  }

  /** The next live message cannot be read, and the gateway does not know. */
  lose(): void {
    if (this.#stream.length > 0 || this.#syncEnd !== undefined) return;
    this.#hasLost ||= this.#seen < this.#server.frames.length;
    this.#seen = Math.min(this.#seen + 1, this.#server.frames.length);
  }

  /**
   * Messages were lost on their way to the gateway, which tells the net changes in their place.
   *
   * Its `sync_complete` would cover up what the client alone has lost, so not both at a time.
   */
  refill(): void {
    if (this.#stream.length > 0 || this.#syncEnd !== undefined || this.#hasLost) return;
    this.#stream = this.#server.netChanges(this.#server.frames[this.#seen - 1]?.seq ?? 0);
    this.#seen = this.#server.frames.length;
    this.#syncEnd = this.#server.seq;
  }

  /** Comes back too late for what the server remembers, and fetches anew. */
  restart(): void {
    const { seq, unreadCount } = this.#server;
    this.#hasLost = false;
    this.#stream = [];
    this.#seen = this.#server.frames.length;
    this.inbox = restartAt(
      this.inbox,
      authenticated({ seq, unread_count: unreadCount, recovered: false }) as Authenticated,
    );
    this.inbox = applyMessage(this.inbox, { type: "sync_complete", seq });
    this.#syncEnd = undefined;
    this.#fetch = { cursor: undefined, page: this.#server.page(), since: [] };
    this.finishFetch();
  }

  receive(): void {
    const synced = this.#stream.shift();
    const live = this.#server.frames[this.#seen];
    if (synced) {
      this.#take(synced);
    } else if (this.#syncEnd !== undefined) {
      this.inbox = applyMessage(this.inbox, { type: "sync_complete", seq: this.#syncEnd });
      this.#syncEnd = undefined;
    } else if (live) {
      this.#seen += 1;
      this.#take(live);
      const { seq, unread_count: count } = live;
      this.inbox = applyMessage(this.inbox, { type: "unread_count", seq, count, by_type: {} });
    }
  }

  #take(frame: InboxMessage): void {
    this.#fetch?.since.push(frame);
    this.inbox = applyMessage(this.inbox, frame);
  }

  get isBehind(): boolean {
    return (
      this.#stream.length > 0 ||
      this.#syncEnd !== undefined ||
      this.#seen < this.#server.frames.length
    );
  }

  startFetch(more: boolean): void {
    if (this.#fetch || (more && this.inbox.cursor === null)) return;
    const cursor = more ? (this.inbox.cursor ?? undefined) : undefined;
    this.#fetch = { cursor, page: undefined, since: [] };
  }

  serveFetch(): void {
    const fetch = this.#fetch;
    if (!fetch || fetch.page) return;
    fetch.page = this.#server.page(fetch.cursor === undefined ? undefined : Number(fetch.cursor));
  }

  finishFetch(): void {
    if (!this.#fetch?.page) return;
    const { cursor, page, since } = this.#fetch;
    this.#fetch = undefined;
    this.inbox =
      cursor === undefined
        ? replaceByPage(this.inbox, page, since)
        : appendPage(this.inbox, page, since);
  }
}

const SEEDS = 1_000;

test("whatever is lost, late or repeated, a page and the messages since equal a page fetched now", () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const { server, client } = live(seed);
    const shown = server.items.filter((item) => placeOf(item) >= client.inbox.floor);
    expect(client.inbox.items.map(content), `seed ${seed}`).toEqual(shown.map(content));
    expect(client.inbox.unreadCount, `seed ${seed}`).toBe(server.unreadCount);
    expect(client.inbox.seq, `seed ${seed}`).toBe(server.seq);
  }
});

/** Lets a server and a client live through 200 random steps, then lets the client catch up. */
function live(seed: number): { server: ModelServer; client: ModelClient } {
  const random = generator(seed);
  const server = new ModelServer(random);
  for (let change = 0; change < random() * 20; change++) server.change();
  const client = new ModelClient(server);
  const steps: [number, () => void][] = [
    [0.3, () => server.change()],
    [0.68, () => client.receive()],
    [0.7, () => client.lose()],
    [0.72, () => client.refill()],
    [0.79, () => client.startFetch(random() < 0.6)],
    [0.86, () => client.serveFetch()],
    [0.93, () => client.finishFetch()],
    [0.985, () => client.reconnect()],
    [1, () => client.restart()],
  ];
  for (let step = 0; step < 200; step++) {
    const choice = random();
    steps.find(([upTo]) => choice < upTo)?.[1]();
  }
  client.serveFetch();
  client.finishFetch();
  while (client.isBehind) client.receive();
  // A message lost at the very end is told by the next pong.
  if (client.inbox.seq !== server.seq) client.reconnect();
  while (client.isBehind) client.receive();
  return { server, client };
}

/** An item whose reading was lost may carry the number of a later change that read all. */
const content = ({ seq: _, ...rest }: Notification) => rest;

function placeOf(item: Notification): number {
  return item.position ?? item.seq;
}

/** Mulberry32: the same numbers for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
