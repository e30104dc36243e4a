import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WebSocketServer } from "ws";
import { browserEnvironment } from "../src/environment.ts";
import { createNotifications, type Notifications } from "../src/index.ts";
import { authenticated, notification } from "./support.ts";

/** The platform's own WebSocket and fetch against a real server; only waking is left out. */
const environment = {
  ...browserEnvironment,
  onWake: () => () => undefined,
  onPresence: () => () => undefined,
};

let http: ReturnType<typeof createServer>;
let sockets: WebSocketServer;
let asked: unknown[];
let client: Notifications;

beforeEach(async () => {
  asked = [];
  http = createServer((_, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(
      JSON.stringify({
        items: [notification(1)],
        unread_count: 1,
        next_cursor: null,
        has_more: false,
        seq: 1,
      }),
    );
  });
  sockets = new WebSocketServer({ server: http, path: "/api/v1/notifications/ws" });
  sockets.on("connection", (socket) => {
    socket.on("message", (data) => {
      const message = JSON.parse(String(data));
      asked.push(message);
      const missed = asked.length > 1 ? [2, 3] : [];
      const seq = 1 + missed.length;
      const answers = [
        authenticated({ seq, unread_count: seq }),
        ...missed.map((n) => ({
          type: "notification",
          seq: n,
          unread_count: seq,
          data: notification(n),
        })),
        { type: "sync_complete", seq },
      ];
      for (const answer of answers) socket.send(JSON.stringify(answer));
    });
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const { port } = http.address() as AddressInfo;
  client = createNotifications({
    baseUrl: `http://127.0.0.1:${port}`,
    token: async () => "token",
    environment,
  });
});

afterEach(async () => {
  client.stop();
  for (const socket of sockets.clients) socket.terminate();
  await new Promise((resolve) => http.close(resolve));
});

test("comes back after the server drops it, with what it missed", async () => {
  client.start();
  await vi.waitFor(() => expect(client.getState().connection.name).toBe("live"));
  for (const socket of sockets.clients) socket.terminate();
  await vi.waitFor(() => expect(client.getState().items.map(({ id }) => id)).toHaveLength(3));
  await vi.waitFor(() => expect(client.getState().connection.name).toBe("live"));
  expect(client.getState().items.map(({ id }) => id)).toEqual(["n3", "n2", "n1"]);
  expect(client.getState().unreadCount).toBe(3);
  expect(asked).toEqual([
    { type: "authenticate", token: "token", since: 1 },
    { type: "authenticate", token: "token", since: 1 },
  ]);
});
