import { ApiError } from "@notify/client";
import { useCallback, useEffect, useState } from "react";

export type Loaded<Value> =
  | { status: "loading" }
  | { status: "ready"; value: Value }
  | { status: "error"; error: ApiError };

/** Loads once; `load` must keep its identity. Returns the outcome so far and a way to try again. */
export function useLoaded<Value>(load: () => Promise<Value>): [Loaded<Value>, () => void] {
  const [attempt, setAttempt] = useState(0);
  const [outcome, setOutcome] = useState<Loaded<Value>>({ status: "loading" });

  // biome-ignore lint/correctness/useExhaustiveDependencies: another attempt loads again
  useEffect(() => {
    let abandoned = false;
    setOutcome({ status: "loading" });
    load().then(
      (value) => !abandoned && setOutcome({ status: "ready", value }),
      (error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        if (!abandoned) setOutcome({ status: "error", error });
      },
    );
    return () => {
      abandoned = true;
    };
  }, [load, attempt]);

  return [outcome, useCallback(() => setAttempt((count) => count + 1), [])];
}
