/**
 * Elects the one tab of a browser that holds the socket, and carries what it hears to the others.
 *
 * The tab that holds a Web Lock leads. The browser grants the lock to the next tab as soon as the
 * leader closes, crashes or is put away; a leader that is still there but answers nothing for
 * `ANSWER_MS` has the lock taken from it. A tab without locks or channel leads itself alone.
 */

import type { Channel, Environment } from "./environment.ts";

export interface TabsOptions<Told> {
  environment: Environment;
  /** This tab holds the socket from now on. */
  onLead: () => void;
  /** The leadership was taken from this tab, which follows from now on. */
  onDeposed: () => void;
  /** A follower asks how things stand; `tell` it. */
  onAsked: () => void;
  /** The leader has told something. */
  onTold: (told: Told) => void;
}

type Message<Told> = { ask: true } | { told: Told };

/** From a question to anything the leader says. */
const ANSWER_MS = 5_000;
/** A leader says something at each heartbeat; one that is suspended without a word does not. */
const SILENCE_MS = 75_000;

export class Tabs<Told> {
  readonly #options: TabsOptions<Told>;
  #channel: Channel | undefined;
  #name = "";
  /** Withdraws the request for the lock, or gives the lock back. */
  #release: (() => void) | undefined;
  #cancelTakeover: (() => void) | undefined;
  #cancelDoubt: (() => void) | undefined;
  #leads = false;

  constructor(options: TabsOptions<Told>) {
    this.#options = options;
  }

  get leads(): boolean {
    return this.#leads;
  }

  /**
   * Takes part until `leave`.
   *
   * @param name what is shared by those tabs alone that may see the same; without it, nobody.
   */
  join(name: string | undefined): void {
    this.leave();
    this.#channel = name === undefined ? undefined : this.#open(name);
    if (name === undefined || !this.#channel) {
      this.#lead();
      return;
    }
    this.#name = name;
    this.#channel.onmessage = ({ data }) => this.#heard(data as Message<Told>);
    this.#request();
    this.ask();
  }

  leave(): void {
    this.#leads = false;
    this.#answered();
    this.#release?.();
    this.#channel?.close();
    this.#release = this.#channel = undefined;
  }

  /** Of a follower: asks how things stand, and leads if nobody answers. */
  ask(): void {
    if (this.#leads || !this.#channel) return;
    this.#post({ ask: true });
    this.#cancelTakeover ??= this.#options.environment.after(ANSWER_MS, () => {
      this.#cancelTakeover = undefined;
      this.#request({ steal: true });
    });
  }

  /** Of the leader: tells the followers. */
  tell(told: Told): void {
    if (this.#leads) this.#post({ told });
  }

  /** Nothing where tabs cannot share, or may not: browsers refuse channels with other storage. */
  #open(name: string): Channel | undefined {
    const { environment } = this.#options;
    if (!environment.locks) return undefined;
    try {
      return environment.createChannel?.(name);
    } catch {
      return undefined;
    }
  }

  #heard(message: Message<Told>): void {
    if ("ask" in message) {
      if (this.#leads) this.#options.onAsked();
    } else if (!this.#leads) {
      this.#answered();
      this.#cancelDoubt = this.#options.environment.after(SILENCE_MS, () => this.ask());
      this.#options.onTold(message.told);
    }
  }

  #request(how: { steal?: true } = {}): void {
    this.#release?.();
    const { locks } = this.#options.environment;
    const withdrawal = new AbortController();
    const released = new Promise<void>((resolve) => {
      this.#release = () => {
        withdrawal.abort();
        resolve();
      };
    });
    let isHeld = false;
    const hold = () => {
      isHeld = true;
      if (!withdrawal.signal.aborted) this.#lead();
      return released;
    };
    // What steals cannot be withdrawn, and need not be: it is granted at once.
    const options = how.steal ? how : { signal: withdrawal.signal };
    locks?.request(this.#name, options, hold).catch(() => {
      if (withdrawal.signal.aborted) return;
      if (!isHeld) {
        // Refused altogether, as in a sandboxed frame.
        this.leave();
        this.#lead();
        return;
      }
      this.#leads = false;
      this.#request();
      this.#options.onDeposed();
    });
  }

  #lead(): void {
    this.#leads = true;
    this.#answered();
    this.#options.onLead();
  }

  #answered(): void {
    this.#cancelTakeover?.();
    this.#cancelDoubt?.();
    this.#cancelTakeover = this.#cancelDoubt = undefined;
  }

  #post(message: Message<Told>): void {
    this.#channel?.postMessage(message);
  }
}
