import { expect, test } from "vitest";
import type { Notification, NotificationPage } from "../src/api.ts";
import {
  appendPage,
  applyMessage,
  EMPTY_INBOX,
  type Inbox,
  replaceByPage,
  restartAt,
  shownIn,
  type View,
} from "../src/inbox.ts";
import type { Authenticated, InboxMessage } from "../src/protocol.ts";
import { generator, ModelServer } from "./model-server.ts";
import { authenticated } from "./support.ts";

interface Fetch {
  view: View;
  cursor: string | undefined;
  replaces: boolean;
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
    this.inbox = replaceByPage(EMPTY_INBOX, "all", server.page(), []);
    this.reconnect();
  }

  /** Leaves the socket where it is and resumes; what was on its way is lost. */
  reconnect(): void {
    const { seq, unread } = this.#server;
    this.#hasLost = false;
    this.#stream = this.#server.netChanges(this.inbox.seq ?? 0);
    this.#seen = this.#server.frames.length;
    this.inbox = applyMessage(
      this.inbox,
      authenticated({ seq, unread_count: unread.length }) as Authenticated,
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
    const { seq, unread } = this.#server;
    this.#hasLost = false;
    this.#stream = [];
    this.#seen = this.#server.frames.length;
    this.inbox = restartAt(
      this.inbox,
      authenticated({ seq, unread_count: unread.length, recovered: false }) as Authenticated,
    );
    this.inbox = applyMessage(this.inbox, { type: "sync_complete", seq });
    this.#syncEnd = undefined;
    const page = this.#server.page();
    this.#fetch = { view: "all", cursor: undefined, replaces: true, page, since: [] };
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

  /** Asks for the first page of a view, or for its next older one. */
  startFetch(view: View, more: boolean): void {
    const extent = this.inbox.extents[view];
    if (this.#fetch || (more && extent?.cursor == null)) return;
    const cursor = more ? (extent?.cursor ?? undefined) : undefined;
    const replaces = !more && extent !== undefined;
    this.#fetch = { view, cursor, replaces, page: undefined, since: [] };
  }

  serveFetch(): void {
    const fetch = this.#fetch;
    if (!fetch || fetch.page) return;
    const cursor = fetch.cursor === undefined ? undefined : Number(fetch.cursor);
    fetch.page = this.#server.page(fetch.view === "unread" ? false : undefined, cursor);
  }

  finishFetch(): void {
    if (!this.#fetch?.page) return;
    const { view, cursor, replaces, page, since } = this.#fetch;
    this.#fetch = undefined;
    // What it continues was given up meanwhile.
    if (cursor !== undefined && this.inbox.extents[view]?.cursor !== cursor) return;
    const join = replaces ? replaceByPage : appendPage;
    this.inbox = join(this.inbox, view, page, since);
  }
}

const SEEDS = 1_000;

test("whatever is lost, late or repeated, a page and the messages since equal a page fetched now", () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const { server, client } = live(seed);
    const { all, unread } = client.inbox.extents;
    const deepest = Math.min(all?.floor ?? Infinity, unread?.floor ?? Infinity);
    const allHeld = server.items.filter(({ position }) => position >= (all?.floor ?? Infinity));
    const unreadHeld = server.unread.filter(({ position }) => position >= deepest);
    expect(shownIn("all", client.inbox).map(content), `seed ${seed}`).toEqual(allHeld.map(content));
    expect(shownIn("unread", client.inbox).map(content), `seed ${seed}`).toEqual(
      unreadHeld.map(content),
    );
    expect(client.inbox.unreadCount, `seed ${seed}`).toBe(server.unread.length);
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
    [0.79, () => client.startFetch(random() < 0.6 ? "all" : "unread", random() < 0.6)],
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
