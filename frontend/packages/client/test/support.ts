import type { Notification } from "../src/api.ts";
import type { Environment, Socket } from "../src/environment.ts";
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

  constructor(url: string) {
    this.url = url;
  }

  send(text: string): void {
    const message = JSON.parse(text) as Record<string, unknown>;
    this.sent.push(message);
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

  ends(code: number): void {
    this.onclose?.({ code });
  }
}

interface Appointment {
  at: number;
  action: () => void;
}

/** A world where time passes, chance falls and the network answers as the test says. */
export class FakeWorld implements Environment {
  time = 1_750_000_000_000;
  chance = 0.5;
  readonly sockets: FakeSocket[] = [];
  readonly requests: Request[] = [];
  answer: (request: Request) => Response | Promise<Response> = () => new Response(null);
  #appointments: Appointment[] = [];
  readonly #wakers = new Set<() => void>();

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
    return socket;
  }

  onWake(listener: () => void): () => void {
    this.#wakers.add(listener);
    return () => this.#wakers.delete(listener);
  }

  get listensForWaking(): boolean {
    return this.#wakers.size > 0;
  }

  get timers(): number {
    return this.#appointments.length;
  }

  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was created");
    return socket;
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
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

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
