/** The messages of `/api/v1/notifications/ws`, and the check every incoming one passes. */

import type { Notification } from "./api.ts";

/** The user's inbox is at `seq` now, with `unread_count` unread notifications in it. */
interface InboxChange {
  seq: number;
  unread_count: number;
}

export interface Authenticated extends InboxChange {
  type: "authenticated";
  user_id: string;
  /** Whether the changes after the `since` asked for follow. */
  recovered: boolean;
  /** Seconds between pings. */
  heartbeat_interval: number;
  expires_at: string | null;
}

export interface NotificationReceived extends InboxChange {
  type: "notification";
  /** As it is by now; how its channels fare is told in the list alone. */
  data: Omit<Notification, "delivery_status">;
}

export interface ReadStatusUpdated extends InboxChange {
  type: "read_status_updated";
  /** `null` when everything up to `up_to` changed, of `notification_type` if that is given. */
  notification_id: string | null;
  /** `null` when it is unread again. */
  read_at: string | null;
  up_to?: number | null;
  notification_type?: string | null;
}

export interface NotificationDeleted extends InboxChange {
  type: "notification_deleted";
  notification_id: string;
}

export interface UnreadCount {
  type: "unread_count";
  /** Repeats the `seq` of the change it follows. */
  seq: number;
  count: number;
  by_type: Record<string, number>;
}

export interface SyncComplete {
  type: "sync_complete";
  seq: number;
}

export interface Pong {
  type: "pong";
  timestamp: string;
  seq: number;
}

export interface ServerError {
  type: "error";
  code: string;
  message: string;
}

/** A change of the inbox that takes a `seq` of its own. */
export type InboxMessage = NotificationReceived | ReadStatusUpdated | NotificationDeleted;

export const isInboxMessage = (message: ServerMessage): message is InboxMessage =>
  ["notification", "read_status_updated", "notification_deleted"].includes(message.type);

export type ServerMessage =
  | Authenticated
  | InboxMessage
  | UnreadCount
  | SyncComplete
  | Pong
  | ServerError;

export type ClientMessage =
  | { type: "authenticate"; token: string; since?: number }
  | { type: "ack"; seq: number }
  | { type: "ping" };

type Check = (value: unknown) => boolean;
type Shape<Message> = { [Field in Exclude<keyof Message, "type">]-?: Check };

const isText: Check = (value) => typeof value === "string";
const isNumber: Check = (value) => typeof value === "number" && Number.isFinite(value);
const isBoolean: Check = (value) => typeof value === "boolean";
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isCounts: Check = (value) => isRecord(value) && Object.values(value).every(isNumber);
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || value === null || check(value);

const notification: Record<string, Check> = {
  id: isText,
  type: isText,
  priority: isText,
  title: isText,
  body: isText,
  body_html: isText,
  data: isRecord,
  created_at: isText,
  read_at: optional(isText),
};

const shapes: { [Message in ServerMessage as Message["type"]]: Shape<Message> } = {
  authenticated: {
    user_id: isText,
    seq: isNumber,
    unread_count: isNumber,
    recovered: isBoolean,
    heartbeat_interval: isNumber,
    expires_at: optional(isText),
  },
  notification: {
    seq: isNumber,
    unread_count: isNumber,
    data: (value) => isRecord(value) && fits(value, notification),
  },
  read_status_updated: {
    seq: isNumber,
    unread_count: isNumber,
    notification_id: orNull(isText),
    read_at: orNull(isText),
    up_to: optional(isNumber),
    notification_type: optional(isText),
  },
  notification_deleted: { seq: isNumber, unread_count: isNumber, notification_id: isText },
  unread_count: { seq: isNumber, count: isNumber, by_type: isCounts },
  sync_complete: { seq: isNumber },
  pong: { timestamp: isText, seq: isNumber },
  error: { code: isText, message: isText },
};

function fits(value: Record<string, unknown>, shape: Record<string, Check>): boolean {
  return Object.entries(shape).every(([field, check]) => check(value[field]));
}

/**
 * Reads one frame of the server.
 *
 * @returns the message, or `undefined` for anything this client does not know or that lacks a
 *   field it needs; such frames are skipped, so that a newer server can say more.
 */
export function parseServerMessage(frame: unknown): ServerMessage | undefined {
  if (typeof frame !== "string") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(frame);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || typeof value["type"] !== "string") return undefined;
  if (!Object.hasOwn(shapes, value["type"])) return undefined;
  const shape = shapes[value["type"] as ServerMessage["type"]];
  return fits(value, shape) ? (value as unknown as ServerMessage) : undefined;
}
