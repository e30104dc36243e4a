import { describe, expect, test } from "vitest";
import { parseServerMessage } from "../src/protocol.ts";
import { authenticated, notification } from "./support.ts";

const valid: Record<string, unknown>[] = [
  authenticated(),
  { type: "notification", seq: 1, unread_count: 1, data: notification(1) },
  {
    type: "read_status_updated",
    seq: 2,
    unread_count: 0,
    notification_id: null,
    read_at: "2026-01-08T12:05:00Z",
    up_to: 1,
    notification_type: null,
  },
  {
    type: "read_status_updated",
    seq: 2,
    unread_count: 0,
    notification_id: "n1",
    read_at: "2026-01-08T12:05:00Z",
  },
  { type: "notification_deleted", seq: 3, unread_count: 0, notification_id: "n1" },
  { type: "unread_count", seq: 3, count: 2, by_type: { task: 2 } },
  { type: "sync_complete", seq: 3 },
  { type: "pong", timestamp: "2026-01-08T12:00:00Z", seq: 3 },
  { type: "error", code: "AUTH_FAILED", message: "Invalid or expired token" },
];

test.each(valid)("reads $type", (message) => {
  expect(parseServerMessage(JSON.stringify(message))).toEqual(message);
});

test("keeps fields it does not know", () => {
  const frame = { type: "sync_complete", seq: 3, later: true };
  expect(parseServerMessage(JSON.stringify(frame))).toEqual(frame);
});

describe("skips", () => {
  test.each([
    ["what is not text", new ArrayBuffer(2)],
    ["what is not JSON", "{"],
    ["what is not an object", "[1]"],
    ["a type it does not know", '{"type":"typing"}'],
    ["a type that only objects have", '{"type":"toString"}'],
    ["a count that is not a number", '{"type":"unread_count","seq":1,"count":"2","by_type":{}}'],
    ["a notification without content", '{"type":"notification","seq":1,"unread_count":1}'],
  ])("%s", (_, frame) => {
    expect(parseServerMessage(frame)).toBeUndefined();
  });

  test.each(valid)("$type without any one of its required fields", (message) => {
    const optional = ["type", "expires_at", "up_to", "notification_type"];
    for (const field of Object.keys(message).filter((name) => !optional.includes(name))) {
      const { [field]: _, ...rest } = message;
      expect(parseServerMessage(JSON.stringify(rest)), field).toBeUndefined();
    }
  });
});
