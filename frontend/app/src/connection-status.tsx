import type { CloseReason, ConnectionState } from "@notify/client";
import { useNotifications, useNotificationsClient } from "@notify/react";
import { useEffect, useState } from "react";
import { useOnline } from "./media.ts";

type Status = "live" | "connecting" | "reconnecting" | "offline" | "closed";

const TEXTS: Readonly<Record<Status, string>> = {
  live: "Live",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  offline: "Offline",
  closed: "Disconnected",
};

/** Whether what is on the page is current, in words and as a colour. */
export function ConnectionStatus() {
  const connection = useNotifications((state) => state.connection);
  const online = useOnline();
  const wasLive = useWasLive(connection);
  const status = statusOf(connection, online, wasLive);
  return (
    <span className="status" data-status={status} role="status">
      <span className="status__dot" aria-hidden="true" />
      {TEXTS[status]}
    </span>
  );
}

const PROBLEMS: Readonly<Record<CloseReason, string>> = {
  unauthorized: "Your session has ended. Sign out, then sign in again.",
  origin_refused: "The server does not take live connections from this address.",
  too_many_connections: "Too many of your windows are live. Close one, then reconnect.",
  refused: "The server ended the live connection.",
};

/** Why nothing arrives any more, once the server has closed for good. */
export function ConnectionProblem() {
  const client = useNotificationsClient();
  const connection = useNotifications((state) => state.connection);
  if (connection.name !== "closed") return null;
  return (
    <div className="problem" role="alert">
      <p>{PROBLEMS[connection.reason]}</p>
      {connection.reason !== "unauthorized" && (
        <button type="button" className="button button--quiet" onClick={() => client.reconnect()}>
          Reconnect
        </button>
      )}
    </div>
  );
}

function statusOf(connection: ConnectionState, online: boolean, wasLive: boolean): Status {
  if (connection.name === "closed" || connection.name === "live") return connection.name;
  if (!online) return "offline";
  return wasLive || connection.name === "waiting" ? "reconnecting" : "connecting";
}

function useWasLive(connection: ConnectionState): boolean {
  const [wasLive, setWasLive] = useState(false);
  useEffect(() => {
    if (connection.name === "live") setWasLive(true);
  }, [connection]);
  return wasLive;
}
