import type { Notification, NotificationPage } from "../src/api.ts";
import type { InboxMessage } from "../src/protocol.ts";
import { notification } from "./support.ts";

const PAGE_SIZE = 4;
const TYPES = ["task", "user"] as const;

/** A small inbox that changes as the real one does, and remembers what it told. */
export class ModelServer {
  seq = 0;
  readonly frames: InboxMessage[] = [];
  /** Called for each frame, as a gateway would pass it on. */
  onFrame: (frame: InboxMessage) => void = () => undefined;
  readonly #items = new Map<string, Notification>();
  readonly #deleted = new Map<string, number>();
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** Newest first. */
  get items(): Notification[] {
    return [...this.#items.values()].toSorted((a, b) => b.position - a.position);
  }

  get unread(): Notification[] {
    return this.items.filter(({ read_at }) => read_at === null);
  }

  get byType(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { type } of this.unread) counts[type] = (counts[type] ?? 0) + 1;
    return counts;
  }

  /** Anything that can happen. */
  change(): void {
    const chosen = this.items[Math.floor(this.#random() * this.#items.size)];
    const kind = this.#random();
    if (!chosen || kind < 0.5) this.create();
    else if (kind < 0.7) this.setRead(chosen.id, chosen.read_at === null);
    else if (kind < 0.85) this.remove(chosen.id);
    else {
      const up_to = Math.max(0, this.seq - Math.floor(this.#random() * 3));
      this.readAll({ up_to, type: this.#random() < 0.5 ? "task" : null });
    }
  }

  page(is_read?: boolean, cursor = Number.POSITIVE_INFINITY): NotificationPage {
    const list = is_read === false ? this.unread : this.items;
    const older = list.filter(({ position }) => position < cursor);
    const items = older.slice(0, PAGE_SIZE);
    const has_more = older.length > PAGE_SIZE;
    const last = items.at(-1);
    return structuredClone({
      items,
      has_more,
      next_cursor: has_more && last ? String(last.position) : null,
      unread_count: this.unread.length,
      seq: this.seq,
    });
  }

  /**
   * Net changes after `since`, in order; the items of one change share its number.
   *
   * What became visible and changed since is told twice: as it is by now, at the number at which it
   * became visible, then at that of its last change. What is gone is told although it was never seen.
   */
  netChanges(since: number): InboxMessage[] {
    const { items } = this;
    const unread_count = this.unread.length;
    const told: InboxMessage[] = [
      ...items.map((data) => this.#frame(data)),
      ...items
        .filter(({ seq, position }) => seq > position)
        .map(({ id, seq, read_at }) => ({
          type: "read_status_updated" as const,
          ...{ seq, unread_count, notification_id: id, read_at },
        })),
      ...[...this.#deleted].map(([notification_id, seq]) => ({
        type: "notification_deleted" as const,
        ...{ seq, unread_count, notification_id },
      })),
    ];
    return structuredClone(told.filter(({ seq }) => seq > since).toSorted((a, b) => a.seq - b.seq));
  }

  create(): void {
    this.seq += 1;
    const type = TYPES[Math.floor(this.#random() * TYPES.length)] ?? "task";
    const created = notification(this.seq, { type });
    this.#items.set(created.id, created);
    this.#tell(this.#frame(created));
  }

  /** Answers whether there is such a notification; one that is read already stays as it is. */
  setRead(id: string, isRead: boolean): boolean {
    const item = this.#items.get(id);
    if (!item) return false;
    if ((item.read_at !== null) === isRead) return true;
    this.seq += 1;
    const read_at = isRead ? "read" : null;
    this.#items.set(id, { ...item, read_at, seq: this.seq });
    this.#tellRead({ notification_id: id, read_at });
    return true;
  }

  readAll({ up_to, type }: { up_to: number | null; type: string | null }): void {
    const covered = this.unread.filter(
      (item) => item.position <= (up_to ?? this.seq) && (type ?? item.type) === item.type,
    );
    if (covered.length === 0) return;
    this.seq += 1;
    for (const item of covered) {
      this.#items.set(item.id, { ...item, read_at: "read", seq: this.seq });
    }
    const known = { up_to: up_to ?? this.seq, notification_type: type };
    this.#tellRead({ notification_id: null, read_at: "read", ...known });
  }

  /** Answers whether there was such a notification. */
  remove(id: string): boolean {
    if (!this.#items.delete(id)) return false;
    this.seq += 1;
    this.#deleted.set(id, this.seq);
    this.#tell({
      type: "notification_deleted",
      seq: this.seq,
      unread_count: this.unread.length,
      notification_id: id,
    });
    return true;
  }

  #frame(data: Notification): InboxMessage {
    return { type: "notification", seq: data.position, unread_count: this.unread.length, data };
  }

  #tell(message: InboxMessage): void {
    const frame = structuredClone(message);
    this.frames.push(frame);
    this.onFrame(frame);
  }

  #tellRead(fields: {
    notification_id: string | null;
    read_at: string | null;
    up_to?: number;
    notification_type?: string | null;
  }): void {
    const { seq } = this;
    const unread_count = this.unread.length;
    this.#tell({ type: "read_status_updated", seq, unread_count, ...fields });
  }
}

/** Mulberry32: the same numbers for the same seed. */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
