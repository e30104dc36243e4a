import type { Notification } from "../src/api.ts";
import type { Channel, Environment, Locks, Socket } from "../src/environment.ts";
import type { ServerMessage } from "../src/protocol.ts";

/** A socket whose other end is the test. */
export class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  readonly url: string;
  readonly sent: Record<string, unknown>[] = [];
  closed = false;
  answersPings = false;
  onSent: (message: Record<string, unknown>) => void = () => undefined;

  constructor(url: string) {
    this.url = url;
  }

  send(text: string): void {
    const message = JSON.parse(text) as Record<string, unknown>;
    this.sent.push(message);
    this.onSent(message);
    if (this.answersPings && message["type"] === "ping") {
      this.says({ type: "pong", timestamp: "2026-01-08T12:00:00Z", seq: 0 });
    }
  }

  close(): void {
    this.closed = true;
  }

  opens(): void {
    this.onopen?.();
  }

  says(message: ServerMessage | Record<string, unknown>): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** Nobody is at this end any more. */
  breaks(): void {
    this.closed = true;
    this.onopen = this.onmessage = this.onclose = null;
  }

  ends(code: number): void {
    this.closed = true;
    this.onclose?.({ code });
  }
}

interface Appointment {
  at: number;
  action: () => void;
}

/** What the tabs of one browser have in common: locks and channels, as browsers keep them. */
export class FakeBrowser {
  readonly #locks = new Map<string, LockRequest[]>();
  readonly #channels = new Set<FakeChannel>();
  readonly #crashed = new Set<FakeWorld>();

  /** The locks as one tab sees them. */
  locksOf(owner: FakeWorld): Locks {
    return {
      request: (name, { signal, steal = false }, hold) =>
        new Promise((resolve, reject) => {
          if (this.#crashed.has(owner)) return;
          const queue = this.#locks.get(name) ?? [];
          this.#locks.set(name, queue);
          const request: LockRequest = { owner, hold, resolve, reject, isGranted: false };
          const holder = queue[0];
          if (steal && holder?.isGranted) {
            queue.shift();
            holder.reject(new DOMException("stolen", "AbortError"));
          }
          if (steal) queue.unshift(request);
          else queue.push(request);
          signal?.addEventListener("abort", () => {
            if (request.isGranted) return;
            const at = queue.indexOf(request);
            if (at >= 0) queue.splice(at, 1);
            reject(signal.reason);
          });
          this.#grant(queue);
        }),
    };
  }

  createChannel(name: string, owner: FakeWorld): Channel {
    const channel = new FakeChannel(name, owner, this.#channels);
    if (!this.#crashed.has(owner)) this.#channels.add(channel);
    return channel;
  }

  /** The tab is gone at once, and the browser takes back what it held. */
  crash(owner: FakeWorld): void {
    this.#crashed.add(owner);
    for (const socket of owner.open) socket.breaks();
    for (const channel of this.#channels) if (channel.owner === owner) channel.close();
    for (const queue of this.#locks.values()) {
      queue.splice(0, queue.length, ...queue.filter((request) => request.owner !== owner));
      this.#grant(queue);
    }
  }

  #grant(queue: LockRequest[]): void {
    const [next] = queue;
    if (!next || next.isGranted) return;
    next.isGranted = true;
    const release = () => {
      const at = queue.indexOf(next);
      if (at >= 0) queue.splice(at, 1);
      this.#grant(queue);
    };
    queueMicrotask(() => next.hold().finally(release).then(next.resolve, next.reject));
  }
}

interface LockRequest {
  owner: FakeWorld;
  hold: () => Promise<void>;
  resolve: (value: unknown) => void;
  reject: (reason: unknown) => void;
  isGranted: boolean;
}

class FakeChannel implements Channel {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  readonly owner: FakeWorld;
  readonly #name: string;
  readonly #all: Set<FakeChannel>;

  constructor(name: string, owner: FakeWorld, all: Set<FakeChannel>) {
    this.#name = name;
    this.owner = owner;
    this.#all = all;
  }

  postMessage(message: unknown): void {
    for (const other of this.#all) {
      if (other === this || other.#name !== this.#name) continue;
      const data = structuredClone(message);
      setImmediate(() => {
        if (this.#all.has(other) && !other.owner.isHung) other.onmessage?.({ data });
      });
    }
  }

  close(): void {
    this.#all.delete(this);
  }
}

/** A world where time passes, chance falls and the network answers as the test says. */
export class FakeWorld implements Environment {
  /** It does nothing any more, but the browser has not noticed. */
  isHung = false;
  locks: Locks | undefined;
  createChannel?: (name: string) => Channel;
  time = 1_750_000_000_000;
  chance = 0.5;
  readonly sockets: FakeSocket[] = [];
  readonly requests: Request[] = [];
  answer: (request: Request) => Response | Promise<Response> = () => new Response(null);
  onSocket: (socket: FakeSocket) => void = () => undefined;
  #appointments: Appointment[] = [];
  readonly #wakers = new Set<() => void>();
  readonly #watchers = new Set<(isPresent: boolean) => void>();

  /** Without a browser it is a tab that cannot share. */
  constructor(browser?: FakeBrowser) {
    if (!browser) return;
    this.locks = browser.locksOf(this);
    this.createChannel = (name) => browser.createChannel(name, this);
  }

  now = () => this.time;
  random = () => this.chance;

  after(ms: number, action: () => void): () => void {
    const appointment = { at: this.time + ms, action };
    this.#appointments.push(appointment);
    return () => {
      this.#appointments = this.#appointments.filter((other) => other !== appointment);
    };
  }

  fetch = async (request: Request): Promise<Response> => {
    this.requests.push(request);
    return this.answer(request);
  };

  createSocket(url: string): Socket {
    const socket = new FakeSocket(url);
    this.sockets.push(socket);
    this.onSocket(socket);
    return socket;
  }

  onWake(listener: () => void): () => void {
    this.#wakers.add(listener);
    return () => this.#wakers.delete(listener);
  }

  onPresence(listener: (isPresent: boolean) => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  get listensForWaking(): boolean {
    return this.#wakers.size > 0;
  }

  /** Sockets that neither end has closed. */
  get open(): FakeSocket[] {
    return this.sockets.filter(({ closed }) => !closed);
  }

  get timers(): number {
    return this.#appointments.length;
  }

  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was created");
    return socket;
  }

  /** The page is put away, or comes back. */
  isPresent(isPresent: boolean): void {
    for (const listener of this.#watchers) listener(isPresent);
  }

  wakes(): void {
    for (const listener of this.#wakers) listener();
  }

  /** Lets `ms` pass, running what falls due in order, and what each of those awaits. */
  async passes(ms: number): Promise<void> {
    const end = this.time + ms;
    for (;;) {
      await settled();
      const due = this.#appointments
        .filter(({ at }) => at <= end)
        .toSorted((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#appointments = this.#appointments.filter((other) => other !== due);
      this.time = Math.max(this.time, due.at);
      due.action();
    }
    this.time = end;
    await settled();
  }
}

/** Waits until every promise that can settle has. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A token for `sub`, as a server would sign it; `exp` in seconds since the epoch. */
export const tokenFor = (sub: string, claims: object = {}): string =>
  `e30.${btoa(JSON.stringify({ sub, ...claims }))}.c2ln`;

export function notification(seq: number, fields: Partial<Notification> = {}): Notification {
  return {
    id: `n${seq}`,
    type: "task",
    priority: "normal",
    title: `Title ${seq}`,
    body: "Body",
    body_html: "<p>Body</p>",
    data: {},
    read_at: null,
    created_at: "2026-01-08T12:00:00Z",
    expires_at: null,
    delivery_status: { in_app: "sent" },
    seq,
    position: seq,
    ...fields,
  };
}

export const authenticated = (fields: Record<string, unknown> = {}) => ({
  type: "authenticated",
  user_id: "u1",
  seq: 0,
  unread_count: 0,
  recovered: true,
  heartbeat_interval: 30,
  expires_at: null,
  ...fields,
});
