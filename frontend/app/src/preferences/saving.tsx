import { createContext, use, useSyncExternalStore } from "react";
import { CloseIcon } from "../icons.tsx";
import type { Change } from "./choices.ts";
import { problemOf, type Refusal, type Saving, type SavingState, untold } from "./store.ts";

export const SavingContext = createContext<Saving | null>(null);

export function useSaving(): Saving {
  const saving = use(SavingContext);
  if (!saving) throw new Error("useSaving needs a <SavingContext> above it");
  return saving;
}

export function useSavingState(): SavingState {
  const saving = useSaving();
  return useSyncExternalStore(saving.subscribe, saving.getState);
}

/** What the server has against the last value of a field. */
export function useProblem(target: Change["target"], ...fields: string[]) {
  return problemOf(useSavingState().refusals, target, ...fields);
}

/** Says that all is saved, for a while, and what is not until that is dealt with; moves nothing. */
export function SavingStatus() {
  const saving = useSaving();
  const { status, refusals } = useSavingState();
  const untoldRefusals = untold(refusals);
  return (
    <div className="notice-place">
      <div role="status">{status === "saved" && <p className="saved">Saved</p>}</div>
      <div role="alert">
        {untoldRefusals.length > 0 && (
          <div className="problem notice">
            <p>{describe(untoldRefusals)}</p>
            <button type="button" className="button button--quiet" onClick={() => saving.retry()}>
              Try again
            </button>
            <button
              type="button"
              className="button button--icon"
              aria-label="Dismiss"
              onClick={() => saving.dismiss()}
            >
              <CloseIcon />
            </button>
          </div>
        )}
      </div>
    </div>
  );
}

function describe(refusals: readonly Refusal[]): string {
  const reason = refusals.at(-1)?.error.message ?? "";
  const what = refusals.length > 1 ? `${refusals.length} changes were` : "Your last change was";
  return `${what} not saved, and taken back. ${reason}`;
}
