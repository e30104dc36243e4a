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

/** What became of a test so far; `waiting` once it takes longer than it should. */
export type TestState =
  | "idle"
  | "sending"
  | "pending"
  | "sent"
  | "delivered"
  | "failed"
  | "waiting"
  | { error: ApiError };

const POLL_MS = 500;
const PATIENCE_MS = 30_000;
const OVER = ["delivered", "failed", "bounced", "skipped", "cancelled"];

/** Sends a test to a device and follows what the server knows of it until that is final. */
export function useTest(
  client: Notifications,
  push: Push,
  deviceId: string,
  onArrived: () => void,
): [TestState, send: () => Promise<void>] {
  const [state, setState] = useState<TestState>("idle");
  const isGone = useRef(false);
  useEffect(() => {
    isGone.current = false;
    return () => {
      isGone.current = true;
    };
  }, []);

  async function follow(id: string): Promise<void> {
    for (const end = Date.now() + PATIENCE_MS; Date.now() < end && !isGone.current; ) {
      const status = (await client.api.get(id)).delivery_status["push"] ?? "pending";
      if (status === "delivered") {
        setState("delivered");
        return onArrived();
      }
      if (OVER.includes(status)) return setState("failed");
      setState(status === "sent" ? "sent" : "pending");
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    setState((state) => (state === "sent" ? "sent" : "waiting"));
  }

  async function send(): Promise<void> {
    setState("sending");
    try {
      await follow(await push.sendTest(deviceId));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState({ error });
    }
  }

  return [state, send];
}
