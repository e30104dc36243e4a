/**
 * Keeps one socket to the inbox open, whatever happens to the network or the server.
 *
 *     idle ─▶ connecting ─▶ authenticating ─▶ syncing ─▶ live
 *                  ▲               any loss │
 *                  └──── waiting ◀──────────┴──▶ closed (the server said not to come back)
 */

import type { TokenProvider } from "./api.ts";
import { backoff } from "./backoff.ts";
import type { Environment, Socket } from "./environment.ts";
import {
  type Authenticated,
  type ClientMessage,
  parseServerMessage,
  type ServerMessage,
} from "./protocol.ts";

export type CloseReason = "unauthorized" | "origin_refused" | "too_many_connections" | "refused";

export type ConnectionState =
  | { name: "idle" }
  | { name: "connecting" }
  | { name: "authenticating" }
  | { name: "syncing" }
  | { name: "live" }
  | { name: "waiting"; retryAt: number }
  | { name: "closed"; reason: CloseReason };

export interface ConnectionOptions {
  url: string;
  token: TokenProvider;
  environment: Environment;
  /** The inbox position to resume from; `undefined` before anything was loaded. */
  since: () => number | undefined;
  onState: (state: ConnectionState) => void;
  /** `resumed`: the changes since `since` follow, so nothing is missing. */
  onAuthenticated: (message: Authenticated, resumed: boolean) => void;
  onMessage: (message: Exclude<ServerMessage, Authenticated>) => void;
}

/** From the start of an attempt to `authenticated`. */
const HANDSHAKE_MS = 15_000;
/** From a ping to any message; a socket that stays silent longer is dead. */
const ANSWER_MS = 10_000;
/** A connection that was live this long does not count as a failure when it ends. */
const STABLE_MS = 10_000;
/** Tokens with less than this left are not renewed in place: the server closes with 3005. */
const RENEWABLE_MS = 30_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const NORMAL_CLOSE = 1000;
const TOKEN_REFUSED: readonly number[] = [3005, 4401];
const CLOSE_REASONS: Readonly<Record<number, CloseReason>> = {
  4403: "origin_refused",
  4429: "too_many_connections",
};

type Timer = "handshake" | "retry" | "ping" | "answer" | "renew";

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #timers = new Map<Timer, () => void>();
  #state: ConnectionState = { name: "idle" };
  #socket: Socket | undefined;
  #stopWaking: (() => void) | undefined;
  /** Failures in a row. */
  #failures = 0;
  #liveSince: number | undefined;
  /** The server refused the last token and a fresh one has not worked yet. */
  #tokenRefused = false;
  /** Counts attempts, so that what an abandoned one still awaits is ignored. */
  #attempt = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** Connects from `idle`, or once more from `closed`; otherwise does nothing. */
  start(): void {
    if (this.#state.name !== "idle" && this.#state.name !== "closed") return;
    this.#failures = 0;
    this.#tokenRefused = false;
    this.#stopWaking ??= this.#options.environment.onWake(() => this.wake());
    void this.#connect();
  }

  stop(): void {
    this.#stopWaking?.();
    this.#stopWaking = undefined;
    this.#release();
    this.#enter({ name: "idle" });
  }

  /** Leaves the current socket and resumes on another: frames were lost on this one. */
  resume(): void {
    if (this.#socket) this.#lost();
  }

  /** Finds out at once whether it is still connected, or connects instead of waiting longer. */
  wake(): void {
    if (this.#state.name === "waiting") void this.#connect();
    else if (this.#state.name === "syncing" || this.#state.name === "live") this.#probe();
  }

  /** Sends while live; otherwise the message is dropped, as the next session makes up for it. */
  send(message: ClientMessage): void {
    if (this.#state.name === "live") this.#send(message);
  }

  async #connect(): Promise<void> {
    this.#release();
    const attempt = this.#attempt;
    const { environment, url, token } = this.#options;
    this.#enter({ name: "connecting" });
    this.#after("handshake", HANDSHAKE_MS, () => this.#lost());
    let bearer: string | null;
    try {
      bearer = await token({ refresh: this.#tokenRefused });
    } catch {
      if (attempt === this.#attempt) this.#lost();
      return;
    }
    if (attempt !== this.#attempt) return;
    if (bearer === null) this.#close("unauthorized");
    else this.#listen(environment.createSocket(url), bearer);
  }

  #listen(socket: Socket, token: string): void {
    this.#socket = socket;
    let since: number | undefined;
    socket.onopen = () => {
      since = this.#options.since();
      this.#enter({ name: "authenticating" });
      this.#send({ type: "authenticate", token, ...(since !== undefined && { since }) });
    };
    socket.onmessage = ({ data }) => {
      this.#cancel("answer");
      const message = parseServerMessage(data);
      if (message?.type === "authenticated") this.#authenticated(message, since !== undefined);
      else if (message) this.#received(message);
    };
    socket.onclose = ({ code }) => this.#ended(code);
  }

  #authenticated(message: Authenticated, sinceSent: boolean): void {
    this.#renewBefore(message.expires_at);
    if (this.#state.name !== "authenticating") return;
    this.#cancel("handshake");
    this.#enter({ name: "syncing" });
    this.#ping(message.heartbeat_interval * 1000, this.#options.environment.random());
    this.#options.onAuthenticated(message, sinceSent && message.recovered);
  }

  #received(message: Exclude<ServerMessage, Authenticated>): void {
    this.#options.onMessage(message);
    if (message.type === "sync_complete" && this.#state.name === "syncing") {
      this.#tokenRefused = false;
      this.#liveSince = this.#options.environment.now();
      this.#enter({ name: "live" });
    }
  }

  /** Pings at a random point of the first interval, so that clients do not ping in step. */
  #ping(intervalMs: number, part: number): void {
    this.#after("ping", intervalMs * part, () => {
      this.#probe();
      this.#ping(intervalMs, 1);
    });
  }

  #probe(): void {
    if (this.#timers.has("answer")) return;
    this.#after("answer", ANSWER_MS, () => this.#lost());
    this.#send({ type: "ping" });
  }

  #renewBefore(expiresAt: string | null | undefined): void {
    const { environment, token } = this.#options;
    const left = expiresAt ? Date.parse(expiresAt) - environment.now() : 0;
    if (!(left > RENEWABLE_MS)) return;
    const delay = left * (0.8 + 0.1 * environment.random());
    if (delay > LONGEST_TIMER_MS) return;
    const attempt = this.#attempt;
    this.#after("renew", delay, () => {
      token({ refresh: true }).then(
        (bearer) => {
          if (attempt === this.#attempt && bearer !== null) {
            this.#send({ type: "authenticate", token: bearer });
          }
        },
        // The old token still works; when it ends the server closes with 3005.
        () => undefined,
      );
    });
  }

  #ended(code: number): void {
    const tokenRefused = TOKEN_REFUSED.includes(code);
    if (tokenRefused && !this.#tokenRefused) {
      this.#tokenRefused = true;
      this.#lost();
    } else if (tokenRefused) {
      this.#close("unauthorized");
    } else if (code >= 4000 && code < 5000) {
      this.#close(CLOSE_REASONS[code] ?? "refused");
    } else {
      this.#lost();
    }
  }

  #lost(): void {
    const { environment } = this.#options;
    const now = environment.now();
    if (this.#liveSince !== undefined && now - this.#liveSince >= STABLE_MS) this.#failures = 0;
    const delay = backoff(this.#failures, environment.random());
    this.#failures += 1;
    this.#release();
    this.#enter({ name: "waiting", retryAt: now + delay });
    this.#after("retry", delay, () => void this.#connect());
  }

  #close(reason: CloseReason): void {
    this.#release();
    this.#enter({ name: "closed", reason });
  }

  #release(): void {
    this.#attempt += 1;
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
    this.#liveSince = undefined;
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(NORMAL_CLOSE);
  }

  #send(message: ClientMessage): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #enter(state: ConnectionState): void {
    this.#state = state;
    this.#options.onState(state);
  }

  #after(timer: Timer, ms: number, action: () => void): void {
    this.#cancel(timer);
    this.#timers.set(
      timer,
      this.#options.environment.after(ms, () => {
        this.#timers.delete(timer);
        action();
      }),
    );
  }

  #cancel(timer: Timer): void {
    this.#timers.get(timer)?.();
    this.#timers.delete(timer);
  }
}
