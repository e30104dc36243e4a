import type { Notifications, Push, PushState } from "@notify/client";
import { ApiError, type PushDevice } from "@notify/client";
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";

export function usePush(push: Push): PushState {
  return useSyncExternalStore(push.subscribe, push.getState);
}

export type Devices =
  | { status: "loading" }
  | { status: "ready"; items: readonly PushDevice[] }
  | { status: "error"; error: ApiError };

/** The user's devices, loaded anew whenever push to this one begins or ends. */
export function useDevices(push: Push): [Devices, reload: () => Promise<void>] {
  const { deviceId, status } = usePush(push);
  const [devices, setDevices] = useState<Devices>({ status: "loading" });
  const last = useRef(0);

  const reload = useCallback(async () => {
    const load = ++last.current;
    const loaded = await push.devices().then(
      (items): Devices => ({ status: "ready", items }),
      (error: unknown): Devices => {
        if (!(error instanceof ApiError)) throw error;
        return { status: "error", error };
      },
    );
    if (load === last.current) setDevices(loaded);
  }, [push]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: another device is to be in the list
  useEffect(() => {
    if (status !== "checking") void reload();
  }, [reload, deviceId, status]);

  return [devices, reload];
}

/**
 * What became of a test so far; `waiting` and `lost` once that takes too long: to be sent, or to be
 * told of by the server.
 */
export type TestState =
  | "idle"
  | "sending"
  | "pending"
  | "sent"
  | "delivered"
  | "failed"
  | "skipped"
  | "waiting"
  | "lost"
  | { error: ApiError };

const POLL_MS = 500;
const PATIENCE_MS = 30_000;
const STATES: Readonly<Record<string, TestState>> = {
  sent: "sent",
  delivered: "delivered",
  failed: "failed",
  bounced: "failed",
  skipped: "skipped",
  cancelled: "skipped",
};

/** @param status of the push, as far as the server has told. */
function stateOf(status: string | undefined, isLate: boolean): TestState {
  const late = status === undefined ? "lost" : "waiting";
  return STATES[status ?? ""] ?? (isLate ? late : "pending");
}

/**
 * Sends a test to a device and follows what the server knows of the last one until that is final.
 *
 * @param onNews the device has got it, or is not there any more.
 */
export function useTest(
  client: Notifications,
  push: Push,
  deviceId: string,
  onNews: () => void,
): [TestState, send: () => Promise<void>] {
  const [state, setState] = useState<TestState>("idle");
  const last = useRef(0);
  useEffect(
    () => () => {
      last.current += 1;
    },
    [],
  );

  /** A channel that was not decided is not among those of the answer. */
  const statusOf = async (id: string): Promise<string | undefined> => {
    const found = await client.api.get(id).catch(() => undefined);
    return found && (found.delivery_status["push"] ?? "skipped");
  };

  async function follow(id: string, isLast: () => boolean): Promise<void> {
    let before: TestState = "sending";
    for (const end = Date.now() + PATIENCE_MS; ; ) {
      const isLate = Date.now() > end;
      const told = stateOf(await statusOf(id), isLate);
      if (!isLast()) return;
      setState(told);
      if (told !== before && (told === "sent" || told === "delivered")) onNews();
      before = told;
      if (isLate || (told !== "pending" && told !== "sent")) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async function send(): Promise<void> {
    const test = ++last.current;
    setState("sending");
    let id: string;
    try {
      id = await push.sendTest(deviceId);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState({ error });
      if (error.status === 404) onNews();
      return;
    }
    await follow(id, () => test === last.current);
  }

  return [state, send];
}
