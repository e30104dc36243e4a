/**
 * What the user has changed and the server has not yet told: laid over the server's state.
 *
 * Nothing is ever added to the server's counts for good. What is shown is derived anew from the
 * server's state and the changes still open, each time either of them is another; a change is
 * dropped once the server's state has its effect, or the server has refused it.
 */

import { ApiError, type Notification } from "./api.ts";
import type { Inbox } from "./inbox.ts";

export type Change =
  | { readonly kind: "read" | "unread" | "remove"; readonly id: string }
  | {
      readonly kind: "read_all";
      /** Covers what became visible at or before this `seq`; without it, everything. */
      readonly upTo?: number | undefined;
      readonly type?: Notification["type"] | undefined;
    };

/** A change that was taken back, and why. */
export interface Failure {
  readonly change: Change;
  readonly error: ApiError;
}

interface Open {
  readonly change: Change;
  readonly at: string;
  /** Of a notification that was not held: the server's state could not show whether it is done. */
  readonly isBlind: boolean;
  /** Ends, without an error, when the server has answered or cannot be reached. */
  answered: Promise<void>;
  /**
   * `confirmed`: the server has made it; its message may be on the way. `due`: whatever the server
   * tells from here on was true after it was made.
   */
  stage: "sent" | "confirmed" | "due";
}

export interface ChangesOptions {
  /** Asks the server; throws `ApiError` when it refuses. */
  send: (change: Change) => Promise<void>;
  /** The server's state as told so far. */
  inbox: () => Inbox;
  /** Time stamp of a change made now. */
  now: () => string;
  /** What is shown has to be derived anew. */
  onChange: () => void;
  onFailure: (failure: Failure) => void;
}

export class Changes {
  readonly #options: ChangesOptions;
  /** Laid over the server's state, in the order they were made. */
  #open: readonly Open[] = [];
  /** Not answered yet; what touches the same notifications waits for them. */
  readonly #unanswered = new Set<Open>();

  constructor(options: ChangesOptions) {
    this.#options = options;
  }

  /** Shows `change` at once and sends it; ends when it is answered. Repeating it sends it once. */
  make(change: Change): Promise<void> {
    const before = [...this.#unanswered].filter((other) => overlap(other.change, change));
    const last = before.at(-1);
    if (last && isSame(last.change, change)) return last.answered;
    const turn = Promise.all(before.map(({ answered }) => answered));
    const open: Open = {
      change,
      at: this.#options.now(),
      isBlind: change.kind !== "read_all" && !holds(this.#options.inbox(), change.id),
      answered: Promise.resolve(),
      stage: "sent",
    };
    open.answered = turn.then(() => this.#send(open));
    this.#open = [...this.#open, open];
    this.#unanswered.add(open);
    this.#options.onChange();
    return open.answered;
  }

  /** The server's state as it will be once it has made what is open. */
  over(inbox: Inbox): Inbox {
    return this.#open.reduce(withChange, inbox);
  }

  /** Drops what the server's state shows to be done; to be called whenever it is another. */
  settle(): void {
    let inbox = this.#options.inbox();
    this.#keep((open) => {
      const after = withChange(inbox, open);
      const hasEffect = after !== inbox;
      inbox = after;
      return hasEffect || (open.isBlind && open.stage === "sent");
    });
  }

  /** What the server tells from here on was true after all that it has confirmed. */
  mark(): void {
    for (const open of this.#open) if (open.stage === "confirmed") open.stage = "due";
  }

  /** Everything was told that was true at the last `mark`. */
  reach(): void {
    this.#keep(({ stage }) => stage !== "due");
  }

  async #send(open: Open): Promise<void> {
    const { send, onFailure } = this.#options;
    try {
      await send(open.change);
      open.stage = "confirmed";
      this.#unanswered.delete(open);
      this.settle();
    } catch (error) {
      this.#unanswered.delete(open);
      // Who sees its effect all the same has nothing to be told.
      const isShown = this.#open.includes(open);
      this.#keep((other) => other !== open);
      if (!(error instanceof ApiError)) throw error;
      if (isShown) onFailure({ change: open.change, error });
    }
  }

  #keep(isKept: (open: Open) => boolean): void {
    const kept = this.#open.filter(isKept);
    if (kept.length === this.#open.length) return;
    this.#open = kept;
    this.#options.onChange();
  }
}

const holds = ({ items }: Inbox, wanted: string) => items.some(({ id }) => id === wanted);

const overlap = (one: Change, other: Change) =>
  one.kind === "read_all" || other.kind === "read_all" || one.id === other.id;

/** Whether both do the same. */
export function isSame(one: Change, other: Change): boolean {
  if (one.kind === "read_all" && other.kind === "read_all") {
    return one.upTo === other.upTo && one.type === other.type;
  }
  return one.kind === other.kind && "id" in one && "id" in other && one.id === other.id;
}

/** Answers the same object when the change has no effect. */
function withChange(inbox: Inbox, { change, at }: Pick<Open, "change" | "at">): Inbox {
  if (change.kind === "read_all") return withAllRead(inbox, change, at);
  const index = inbox.items.findIndex(({ id }) => id === change.id);
  const item = inbox.items[index];
  if (!item) return inbox;
  const wasUnread = item.read_at === null;
  if (change.kind === "remove") {
    const items = inbox.items.toSpliced(index, 1);
    return { ...inbox, items, ...(wasUnread && counts(inbox, item.type, -1)) };
  }
  const isUnread = change.kind === "unread";
  if (isUnread === wasUnread) return inbox;
  const items = inbox.items.with(index, { ...item, read_at: isUnread ? null : at });
  return { ...inbox, items, ...counts(inbox, item.type, isUnread ? 1 : -1) };
}

function withAllRead(
  inbox: Inbox,
  { upTo = Number.POSITIVE_INFINITY, type }: Extract<Change, { kind: "read_all" }>,
  at: string,
): Inbox {
  const isMeant = (item: Notification) =>
    item.read_at === null && (type ?? item.type) === item.type;
  const isCovered = (item: Notification) => isMeant(item) && item.position <= upTo;
  const covered = inbox.items.filter(isCovered).length;
  const later = inbox.items.filter((item) => isMeant(item) && item.position > upTo).length;
  const before = type === undefined ? inbox.unreadCount : inbox.byType?.[type];
  // All that came later is held, unless `upTo` lies below the pages held.
  const isKnown = before !== undefined && upTo >= (inbox.extents.all?.floor ?? upTo + 1);
  const drop = isKnown ? Math.max(0, before - later) : covered;
  if (covered === 0 && drop === 0) return inbox;
  const items = inbox.items.map((item) => (isCovered(item) ? { ...item, read_at: at } : item));
  return { ...inbox, items, ...counts(inbox, type, -drop) };
}

/** The counts with `difference` more unread of `type`, or of all types. */
function counts(
  { unreadCount, byType }: Inbox,
  type: string | undefined,
  difference: number,
): Pick<Inbox, "unreadCount" | "byType"> {
  const count = Math.max(0, unreadCount + difference);
  if (count === 0) return { unreadCount: 0, byType: {} };
  if (byType === null || type === undefined) return { unreadCount: count, byType: null };
  const { [type]: ofType = 0, ...others } = byType;
  const left = Math.max(0, ofType + difference);
  return { unreadCount: count, byType: left > 0 ? { ...others, [type]: left } : others };
}
