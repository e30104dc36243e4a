/**
 * Where the messages come from: the tab's own socket, or the tab of the browser that holds one.
 *
 * The leader tells its followers all that its socket says, in order, and how things stand where
 * somebody asks. A follower applies what it is told once it is in step, which is to say that it
 * has everything that came before; its own calls go by REST, so it needs the leader for no more.
 */

import type { TokenProvider } from "./api.ts";
import { Connection, type ConnectionState } from "./connection.ts";
import type { Environment } from "./environment.ts";
import type { Inbox } from "./inbox.ts";
import type { Authenticated, ClientMessage, ServerMessage } from "./protocol.ts";
import { Tabs } from "./tabs.ts";
import { subjectOf } from "./token.ts";

export type LiveMessage = Exclude<ServerMessage, Authenticated>;

/** What a tab holds. */
export interface Standing {
  readonly inbox: Inbox;
  readonly status: "idle" | "loading" | "ready" | "error";
}

export interface FeedOptions {
  url: string;
  token: TokenProvider;
  environment: Environment;
  standing: () => Standing;
  /** Fetches the newest page. */
  load: () => Promise<void>;
  onConnection: (state: ConnectionState) => void;
  /** `resumed`: the changes since what is held follow, so nothing is missing. */
  onAuthenticated: (message: Authenticated, resumed: boolean) => void;
  onMessage: (message: LiveMessage) => void;
  /** A message that cannot be applied yet, but belongs to the pages that are under way. */
  onEarlyMessage: (message: LiveMessage) => void;
  /** How it stands with the leader; `hasAll`: nothing of it is missing here. */
  onStanding: (standing: Standing, hasAll: boolean) => void;
}

type Told =
  | ({ kind: "standing"; connection: ConnectionState } & Standing)
  | { kind: "connection"; connection: ConnectionState }
  | { kind: "authenticated"; message: Authenticated; resumedFrom: number | undefined }
  | { kind: "message"; message: LiveMessage };

export class Feed {
  readonly #options: FeedOptions;
  readonly #connection: Connection;
  readonly #tabs: Tabs<Told>;
  #state: ConnectionState = { name: "idle" };
  #stopWatching: (() => void) | undefined;
  /** Counts the times it joined the tabs or left them. */
  #presence = 0;
  /** Of a follower: it has all that the leader has told. */
  #isInStep = false;
  /** It leads by itself only because no token could be had that says with whom to share. */
  #isAloneForNow = false;

  constructor(options: FeedOptions) {
    const { url, token, environment } = options;
    this.#options = options;
    this.#connection = new Connection({
      url,
      token,
      environment,
      since: () => options.standing().inbox.seq,
      onState: (state) => this.#entered(state),
      onAuthenticated: (message, resumed) => {
        const resumedFrom = resumed ? options.standing().inbox.seq : undefined;
        this.#tell({ kind: "authenticated", message, resumedFrom });
      },
      onMessage: (message) => this.#tell({ kind: "message", message }),
    });
    this.#tabs = new Tabs<Told>({
      environment,
      onLead: () => this.#lead(),
      onDeposed: () => {
        this.#connection.stop();
        this.#fallOut();
      },
      onAsked: () => {
        this.#connection.wake();
        this.#tellStanding();
      },
      onTold: (told) => this.#heed(told),
    });
  }

  /** Whether this tab holds the socket. */
  get leads(): boolean {
    return this.#tabs.leads;
  }

  start(): void {
    if (this.#stopWatching) return;
    this.#stopWatching = this.#watch();
    void this.#join();
  }

  stop(): void {
    this.#stopWatching?.();
    this.#stopWatching = undefined;
    this.#leave();
  }

  /** Connects again after the server closed for good. */
  reconnect(): void {
    if (this.#state.name === "closed") void this.#join();
  }

  /** Asks again for what came after the last change that is held: something was lost. */
  resume(): void {
    if (this.#tabs.leads) this.#connection.resume();
    else this.#fallOut();
  }

  /** Sends where this tab holds the socket; who follows leaves that to the leader. */
  send(message: ClientMessage): void {
    this.#connection.send(message);
  }

  /** The newest page was fetched here: what is told from now on continues it. */
  loaded(): void {
    this.#isInStep = true;
    this.#tellStanding();
  }

  /** Follows the page in and out of sight, and asks the leader when there is reason to doubt it. */
  #watch(): () => void {
    const { environment } = this.#options;
    let isPresent = true;
    const stopPresence = environment.onPresence?.((present) => {
      if (present === isPresent) return;
      isPresent = present;
      if (present) void this.#join();
      else this.#leave();
    });
    const stopWaking = environment.onWake(() => this.#tabs.ask());
    return () => {
      stopPresence?.();
      stopWaking();
    };
  }

  async #join(): Promise<void> {
    this.#leave();
    const presence = this.#presence;
    const { environment, token, url } = this.#options;
    const canShare = environment.locks && environment.createChannel;
    let isTokenAway = false;
    const user =
      canShare &&
      subjectOf(
        await token({ refresh: false }).catch(() => {
          isTokenAway = true;
          return null;
        }),
      );
    if (presence !== this.#presence) return;
    this.#isAloneForNow = isTokenAway;
    this.#tabs.join(user && `notify:1:${url}:${user}`);
  }

  #leave(): void {
    this.#presence += 1;
    this.#isInStep = false;
    this.#tabs.leave();
    this.#connection.stop();
  }

  async #lead(): Promise<void> {
    const presence = this.#presence;
    // The page comes first, so that the socket resumes from exactly what it shows.
    if (this.#options.standing().status !== "ready") await this.#options.load();
    if (presence === this.#presence && this.#tabs.leads) this.#connection.start();
  }

  #entered(state: ConnectionState): void {
    this.#state = state;
    this.#options.onConnection(state);
    // What is refused to this tab may be granted to the next, which has a token of its own.
    if (state.name === "closed") this.#tabs.leave();
    else this.#tabs.tell({ kind: "connection", connection: state });
    if (state.name === "live" && this.#isAloneForNow) void this.#join();
  }

  #tell(told: Told): void {
    this.#tabs.tell(told);
    this.#take(told);
  }

  #tellStanding(): void {
    this.#tabs.tell({ kind: "standing", ...this.#options.standing(), connection: this.#state });
  }

  /** Of a follower: takes what the leader tells, if it has what came before. */
  #heed(told: Told): void {
    const isOfStream = told.kind === "authenticated" || told.kind === "message";
    const from = told.kind === "authenticated" ? (told.resumedFrom ?? 0) : 0;
    if (from > (this.#options.standing().inbox.seq ?? 0)) this.#fallOut();
    if (this.#isInStep || !isOfStream) {
      this.#take(told);
      return;
    }
    if (told.kind === "message") this.#options.onEarlyMessage(told.message);
    this.#tabs.ask();
  }

  #take(told: Told): void {
    const { onConnection, onAuthenticated, onMessage } = this.#options;
    switch (told.kind) {
      case "standing":
        onConnection(told.connection);
        this.#compare(told);
        break;
      case "connection":
        onConnection(told.connection);
        break;
      case "authenticated":
        onAuthenticated(told.message, told.resumedFrom !== undefined);
        break;
      case "message":
        onMessage(told.message);
    }
  }

  #compare(standing: Standing): void {
    const own = this.#options.standing();
    const isAhead = own.status === "ready" && (own.inbox.seq ?? -1) >= standing.inbox.begun;
    const hasAll = this.#isInStep || isAhead;
    this.#isInStep ||= standing.status === "ready";
    this.#options.onStanding(standing, hasAll);
  }

  /** Of a follower: something was missed, so what follows has to wait for how things stand. */
  #fallOut(): void {
    this.#isInStep = false;
    this.#tabs.ask();
  }
}
